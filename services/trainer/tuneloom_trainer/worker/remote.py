"""Entry point where the trainer does not see the run directory: `python -m tuneloom_trainer.worker.remote RUN_DIR`.

Runs the worker as a child that knows no token, reports its events and uploads its checkpoints under the attempt's own
token. When the trainer says that the lease is lost, the worker is ended: another attempt has taken over.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tuneloom_client.trainer import TrainerClient
from tuneloom_client.uploads import Upload
from tuneloom_common import children
from tuneloom_common.errors import FailedPrecondition, PermissionDenied, Unauthenticated, Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_common.networks import CA_NEEDED, leaves_machine, would_be_read
from tuneloom_common.objects import permissions
from tuneloom_common.patience import patient
from tuneloom_common.tls import PeerTls
from tuneloom_trainer.events import EventTail
from tuneloom_trainer.training_events import EventBody
from tuneloom_trainer.worker.protocol import (
    EXIT_FAILED,
    EXIT_STOPPED,
    NOT_AN_EVENT,
    CheckpointSaved,
    Exited,
    Failed,
    LoggedEvent,
    WorkerFailed,
    WorkerSpec,
    events_file,
)

TRAINER_PREFIX = "TUNELOOM_WORKER_TRAINER_"
"""With CA, CERTIFICATE, KEY and SERVER_NAME, where the trainer speaks TLS; TRUSTED_NETWORK=true where plain text may be
sent to another machine."""
ADDRESS_VARIABLE = f"{TRAINER_PREFIX}ADDRESS"
TOKEN_VARIABLE = "TUNELOOM_WORKER_TOKEN"  # noqa: S105 - the name of a variable
WORKER_LOG = "worker.log"
TAIL_SECONDS = 0.2
STOP_GRACE_SECONDS = 20.0
LOST = (FailedPrecondition, PermissionDenied, Unauthenticated)
"""What the trainer answers when this attempt is no longer the newest."""


class Reporter:
    """One attempt's worker and what it tells."""

    def __init__(self, trainer: TrainerClient, run_dir: Path, command: Sequence[str]) -> None:
        self._trainer = trainer
        self._run_dir = run_dir
        self._command = command
        self._spec = WorkerSpec.read(run_dir)
        self._next = 1
        self._direct = True

    async def run(self) -> int:
        """The worker's exit status, or EXIT_STOPPED when its lease was lost."""
        log = self._run_dir / WORKER_LOG
        child = await children.spawn([*self._command, str(self._run_dir)], log=log)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, child.terminate)
        tail = EventTail(self._run_dir / events_file(self._spec.lease_epoch), after=0)
        try:
            ended = asyncio.ensure_future(child.wait())
            while not ended.done():
                await self._tell(_news(tail))
                await asyncio.wait({ended}, timeout=TAIL_SECONDS)
            await self._tell(_news(tail))
            await self._report([Exited(status=ended.result(), last_words=children.last_lines(log))])
            return ended.result()
        except WorkerFailed as error:
            await child.stop(grace_seconds=0)
            await self._report([Failed(reason=error.reason, message=str(error)), Exited(status=EXIT_FAILED)])
            return EXIT_FAILED
        except LOST as error:
            print(f"the trainer hears this worker no more: {error}", file=sys.stderr)  # noqa: T201 - its log
            return EXIT_STOPPED
        finally:
            await child.stop(grace_seconds=0)

    async def _tell(self, events: Sequence[LoggedEvent]) -> None:
        """Reports events in order; a checkpoint's files are stored before it is told of."""
        told: list[EventBody | None] = []
        for logged in events:
            event = logged.event
            if isinstance(event, CheckpointSaved):
                event = event.model_copy(update={"files": await self._upload(self._run_dir / event.path)})
            told.append(event)
        if told:
            await self._report(told)

    async def _report(self, events: Sequence[EventBody | None]) -> None:
        lines = [json.dumps(_line(event)) for event in events]
        job, epoch, first = self._spec.job, self._spec.lease_epoch, self._next
        last = await patient(
            lambda: self._trainer.report_events(job, lease_epoch=epoch, first_sequence=first, events=lines),
            what="report",
        )
        self._next = last + 1

    async def _upload(self, directory: Path) -> tuple[FileEntry, ...]:
        entries = []
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            upload = await Upload.of(path, name=path.relative_to(directory).as_posix())
            if not await self._stored(upload):
                await patient(
                    lambda upload=upload: self._trainer.upload_checkpoint_file(  # type: ignore[misc]
                        self._spec.job, lease_epoch=self._spec.lease_epoch, upload=upload
                    ),
                    what="upload a checkpoint",
                )
            entries.append(upload.entry)
        return tuple(entries)

    async def _stored(self, upload: Upload) -> bool:
        """Whether the file is in the object store, by a permission of the store's own. Where it gives none, or is out
        of this machine's reach, the trainer takes the bytes."""
        job, epoch = self._spec.job, self._spec.lease_epoch
        (given,) = await patient(
            lambda: self._trainer.permit_uploads(job, lease_epoch=epoch, files=[upload.entry]),
            what="upload a checkpoint",
        )
        if not isinstance(given, permissions.Permission):
            return given == "stored"
        if not self._direct:
            return False
        try:
            await permissions.upload(given, upload.path)
        except Unavailable as error:
            print(f"{upload.path.name} goes through the trainer: {error}", file=sys.stderr)  # noqa: T201 - its log
            self._direct = False
        return self._direct


def _news(tail: EventTail) -> list[LoggedEvent]:
    try:
        return list(tail.read())
    except NOT_AN_EVENT as error:
        raise WorkerFailed("WORKER_PROTOCOL", f"the worker does not keep the protocol: {error!r:.2000}") from error


def _line(event: EventBody | None) -> dict[str, object]:
    """An event as its line of the log; one of a type this release does not know keeps its place."""
    return {"type": "unknown"} if event is None else {"type": event.kind, **event.model_dump(mode="json")}


def _tls() -> PeerTls | None:
    """As a service's settings about its peer."""
    told = {name: os.environ.get(TRAINER_PREFIX + name, "") for name in ("CA", "CERTIFICATE", "KEY", "SERVER_NAME")}
    return PeerTls.of(
        ca=told["CA"],
        certificate=Path(told["CERTIFICATE"]) if told["CERTIFICATE"] else None,
        key=Path(told["KEY"]) if told["KEY"] else None,
        server_name=told["SERVER_NAME"],
        setting=TRAINER_PREFIX,
    )


async def main(run_dir: Path, command: Sequence[str]) -> int:
    """Exits with one line where the token would be sent in plain text to another machine."""
    address, token, tls = os.environ[ADDRESS_VARIABLE], os.environ.pop(TOKEN_VARIABLE), _tls()
    trusted = os.environ.get(f"{TRAINER_PREFIX}TRUSTED_NETWORK", "").lower() in ("1", "true")
    if tls is None and not trusted and leaves_machine(address):
        mend = f"set {TRAINER_PREFIX}CA {CA_NEEDED}"
        raise SystemExit(f"{ADDRESS_VARIABLE}: {would_be_read(address, mend=mend, prefix=TRAINER_PREFIX)}")
    async with TrainerClient.at(
        address, token=token, tls=tls, setting=TRAINER_PREFIX, address_setting=ADDRESS_VARIABLE
    ) as trainer:
        return await Reporter(trainer, run_dir, command).run()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        worker = sys.argv[2:] or [sys.executable, "-m", "tuneloom_trainer.worker"]
        sys.exit(asyncio.run(main(Path(sys.argv[1]), worker)))
