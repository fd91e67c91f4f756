"""Entry point: `python -m tuneloom_trainer.worker RUN_DIR`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from tuneloom_common.children import COMPUTE_ENVIRONMENT, die_with_parent
from tuneloom_common.disks import EXIT_DISK_FULL, is_full
from tuneloom_trainer.worker.protocol import EXIT_FAILED, EventLog, Failed, WorkerFailed, WorkerSpec, events_file


def main(run_dir: Path) -> int:
    """Trains what `spec.json` says. Never exits with 0 unless every step was done and saved."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spec = WorkerSpec.read(run_dir)
    events = EventLog(run_dir / events_file(spec.lease_epoch), lease_epoch=spec.lease_epoch)
    os.environ.update(COMPUTE_ENVIRONMENT)
    try:
        import torch

        from tuneloom_trainer.worker.loop import train

        if spec.num_threads:
            torch.set_num_threads(spec.num_threads)
        return train(spec, run_dir, events, stop.is_set)
    except WorkerFailed as error:
        events.emit(Failed(reason=error.reason, message=str(error)))
        return EXIT_FAILED
    except Exception as error:
        if is_full(error):  # the event log may have no space either: the status says it
            print(f"no space left: {error}", file=sys.stderr)  # noqa: T201 - its log
            return EXIT_DISK_FULL
        if isinstance(error, OSError):
            raise
        traceback.print_exc()
        events.emit(Failed(reason="WORKER_ERROR", message=f"{type(error).__name__}: {error}"[:2000]))
        return EXIT_FAILED
    finally:
        with suppress(OSError):
            events.close()


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(Path(sys.argv[1])))
