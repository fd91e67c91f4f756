"""Entry point: `python -m tuneloom_trainer.worker RUN_DIR`."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from tuneloom_common.children import COMPUTE_ENVIRONMENT, die_with_parent
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
        if _is_disk_full(error):
            events.emit(Failed(reason="DISK_FULL", message="no space left for checkpoints; free some and resubmit"))
            return EXIT_FAILED
        if isinstance(error, OSError):
            raise
        traceback.print_exc()
        events.emit(Failed(reason="WORKER_ERROR", message=f"{type(error).__name__}: {error}"[:2000]))
        return EXIT_FAILED
    finally:
        events.close()


def _is_disk_full(error: Exception) -> bool:
    # safetensors hands the system's error on as text
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or f"os error {errno.ENOSPC}" in str(error)


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(Path(sys.argv[1])))
