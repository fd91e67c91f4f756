"""What the services of one machine must not share."""

from __future__ import annotations

from tests.cluster.services import Cluster


def test_a_directory_is_one_process_s(cluster: Cluster) -> None:
    """A second one would clean away what the first is receiving."""
    for service, setting in (
        (cluster.trainers[0], "TUNELOOM_TRAINER_WORK_DIR"),
        (cluster.registries[0], "TUNELOOM_REGISTRY_WORK_DIR"),
    ):
        twin = service.twin()
        twin.start()
        assert twin.await_end() == 1
        assert setting in twin.log.read_text()
