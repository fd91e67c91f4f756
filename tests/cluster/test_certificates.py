"""Certificates are replaced while everything runs."""

from __future__ import annotations

from tests.authority import HERE
from tests.cluster.conftest import Clients
from tests.cluster.services import NAME, TOKEN, Backends, Cluster
from tuneloom_client.registry import RegistryClient


async def test_renewed_under_a_running_cluster(cluster: Cluster, clients: Clients, backends: Backends) -> None:
    """What was open goes on; what is opened by whoever has read the new files works, here and between the services."""
    before = backends.files.certificate.read_bytes()
    backends.authority.issue("cluster", hosts=[NAME, *HERE])
    assert backends.files.certificate.read_bytes() != before
    for service in cluster.registries:
        async with RegistryClient.at(service.address, token=TOKEN, tls=backends.tls) as fresh:
            await fresh.ensure_model(f"models/{service.name}")
    for registry in clients.registries:
        assert {f"models/{service.name}" for service in cluster.registries} <= {
            model.name for model in await registry.models()
        }
        assert await clients.trainer.jobs() is not None
    for service in cluster.registries:
        service.kill()
        service.revive()  # every caller connects anew, with what is in the files now
        assert await clients.registry.models()
