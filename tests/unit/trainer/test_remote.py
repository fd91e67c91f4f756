"""Workers out of the trainer's reach: events and checkpoints arrive by calls, under the attempt's own token."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.unit.trainer.conftest import FAKE_WORKER, BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.running import eventually, run_dir, running, submit, until_checkpoint, until_state
from tuneloom_client.trainer import TrainerClient
from tuneloom_client.uploads import Upload
from tuneloom_common import children
from tuneloom_common.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from tuneloom_common.principals import PrincipalEntry
from tuneloom_common.queue import Lease, Retry
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.inboxes import Inbox
from tuneloom_trainer.jobs import Job, JobState, LogTail
from tuneloom_trainer.launchers.local import LocalLauncher
from tuneloom_trainer.launchers.remote import RemoteRun
from tuneloom_trainer.worker.protocol import CheckpointSaved, LoggedEvent
from tuneloom_trainer.worker.remote import ADDRESS_VARIABLE, TOKEN_VARIABLE, TRAINER_PREFIX, main

NOTE = json.dumps({"type": "note", "text": "hello"})
CALLER = PrincipalEntry(
    id="other", token_sha256=hashlib.sha256(b"other").hexdigest(), scopes=frozenset({"trainer:report"})
)


class FarLauncher:
    """Prepares as here and runs the worker as on another machine: it has the trainer's address and its own token."""

    def __init__(self, local: LocalLauncher, app: TrainerApp, *, port: int = 0) -> None:
        self._port = port or app.port
        self.environment: dict[str, str] = {}
        self._local = local
        self._app = app
        self.children: list[children.Child] = []

    async def start(self, job: Job, inbox: Inbox, *, registered: Any) -> RemoteRun:
        directory = await self._local.prepare(job, registered=registered)
        await self._app.reports.admit(inbox.lease, inbox.token)
        child = await children.spawn(
            [sys.executable, "-m", "tuneloom_trainer.worker.remote", str(directory), sys.executable, str(FAKE_WORKER)],
            log=directory / "remote.log",
            env={ADDRESS_VARIABLE: f"127.0.0.1:{self._port}", TOKEN_VARIABLE: inbox.token, **self.environment},
        )
        self.children.append(child)

        async def end(grace_seconds: float) -> None:
            await child.stop(grace_seconds=grace_seconds)

        return RemoteRun(inbox, self._local._objects, self._app.reports, end=end)

    async def log(self, job_id: str, *, since: int, max_bytes: int) -> LogTail | None:
        return None

    async def attach(self, job: Job, inbox: Inbox) -> None:
        pass

    async def clean(self, job_id: str) -> None:
        await self._local.clean(job_id)

    async def kept(self) -> list[str]:
        return []


@pytest.fixture
async def app(build_app: BuildApp) -> TrainerApp:
    app = await build_app(principals=(CALLER,))
    parts = app.runner._parts
    assert isinstance(parts.launcher, LocalLauncher)
    app.runner._parts = dataclasses.replace(parts, launcher=FarLauncher(parts.launcher, app))
    return app


@asynccontextmanager
async def client(app: TrainerApp, token: str) -> AsyncIterator[TrainerClient]:
    async with TrainerClient.at(f"127.0.0.1:{app.port}", token=token) as trainer:
        yield trainer


async def test_a_job_trains_far_away_and_succeeds(app: TrainerApp, registry: FakeRegistry, tmp_path: Path) -> None:
    async with running(app):
        job = await submit(app, registry, "succeed", merge=True)
        done = await until_state(app, job, JobState.SUCCEEDED)

    assert done.merged_version == "models/assistant/versions/2"
    assert len(registry.versions_of(job.id)) == 2
    assert done.progress is not None


async def test_a_far_worker_pauses_and_goes_on(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)
        await app.store.request_pause(job.id)
        await until_state(app, job, JobState.PAUSED)
        await app.store.resume(job.id)
        await until_state(app, job, JobState.SUCCEEDED)


async def test_a_far_worker_speaks_tls(build_app: BuildApp, registry: FakeRegistry, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine, worker = authority.issue("trainer"), authority.issue("worker")
    app = await build_app(tls_certificate=mine.certificate, tls_key=mine.key, tls_client_ca=authority.path)
    parts = app.runner._parts
    assert isinstance(parts.launcher, LocalLauncher)
    far = FarLauncher(parts.launcher, app)
    app.runner._parts = dataclasses.replace(parts, launcher=far)
    shown = {"CA": authority.path, "CERTIFICATE": worker.certificate, "KEY": worker.key}
    far.environment = {f"{TRAINER_PREFIX}{name}": str(path) for name, path in shown.items()}
    async with running(app):
        job = await submit(app, registry, "succeed")
        await until_state(app, job, JobState.SUCCEEDED)


async def test_a_far_worker_sends_its_token_to_no_other_machine_in_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "trainer.internal:8022")
    monkeypatch.setenv(TOKEN_VARIABLE, "attempt")
    with pytest.raises(SystemExit, match=f"{TRAINER_PREFIX}CA .* {TRAINER_PREFIX}TRUSTED_NETWORK=true"):
        await main(tmp_path, [])
    monkeypatch.setenv(TOKEN_VARIABLE, "attempt")
    monkeypatch.setenv(f"{TRAINER_PREFIX}TRUSTED_NETWORK", "true")
    with pytest.raises(FileNotFoundError):  # it goes on to read what to do
        await main(tmp_path / "nothing", [])


async def test_a_far_worker_that_dies_is_started_again(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        job = await submit(app, registry, "crash", "succeed")
        done = await until_state(app, job, JobState.SUCCEEDED)
    assert done.lease_epoch == 2


@pytest.mark.parametrize("word", ["overcount", "nest"])
async def test_a_far_worker_that_tells_the_impossible_fails_its_job(
    app: TrainerApp, registry: FakeRegistry, word: str
) -> None:
    async with running(app):
        failed = await until_state(app, await submit(app, registry, word), JobState.FAILED)
    assert (failed.error_reason, failed.lease_epoch) == ("WORKER_PROTOCOL", 1)


async def test_a_far_worker_whose_lease_is_lost_ends_itself(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    launcher = app.runner._parts.launcher
    assert isinstance(launcher, FarLauncher)
    async with running(app):
        job = await submit(app, registry, "chatter")
        await until_checkpoint(app, job)
        app.inboxes._open[job.id].shut()
        await eventually(lambda: launcher.children[0].returncode is not None)
    assert launcher.children[0].returncode == 75
    assert "no attempt 1 runs here" in (run_dir(tmp_path, job) / "remote.log").read_text()


@pytest.fixture
async def other(build_app: BuildApp, app: TrainerApp, tmp_path: Path) -> TrainerApp:
    """A second trainer on the same database; the workers of the first are given its address."""
    other = await build_app(principals=(CALLER,), work_dir=tmp_path / "other", slots=0)
    launcher = app.runner._parts.launcher
    assert isinstance(launcher, FarLauncher)
    launcher._port = other.port
    return other


async def test_a_far_worker_may_talk_to_a_trainer_that_does_not_run_its_attempt(
    app: TrainerApp, other: TrainerApp, registry: FakeRegistry
) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "crash", "succeed")
        await until_checkpoint(other, job)
        await other.store.request_pause(job.id)
        await until_state(other, job, JobState.PAUSED)
        await other.store.resume(job.id)
        done = await until_state(app, job, JobState.SUCCEEDED)
    assert done.lease_epoch == 3
    events = await other.store.events_after(job.id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_what_is_told_elsewhere_is_taken_once_in_order_and_under_the_lease(
    app: TrainerApp, other: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    job = await submit(app, registry, "succeed")
    claimed = await app.queue.claim()
    assert claimed is not None
    payload = tmp_path / "weights"
    payload.write_bytes(b"weights")
    upload = await Upload.of(payload)
    other.reports._heard_seconds = 0.1

    with app.inboxes.open(claimed.lease) as inbox:
        async with client(other, inbox.token) as trainer:

            async def report(first: int, *events: str, epoch: int = claimed.lease_epoch) -> int:
                return await trainer.report_events(job.id, lease_epoch=epoch, first_sequence=first, events=events)

            with pytest.raises(Unauthenticated):
                await report(1, NOTE)
            await app.reports.admit(claimed.lease, inbox.token)
            with pytest.raises(Unavailable, match="does not take in"):  # nobody listens yet
                await report(1, NOTE, NOTE)
            assert [sequence for sequence, _ in await app.reports.told(claimed.lease, after=0)] == [1, 2]
            await app.queue.append_events(claimed, [], worker_sequence=2)
            assert await report(1, NOTE, NOTE) == 2
            with pytest.raises(FailedPrecondition, match="event 3 is missing"):
                await report(4, NOTE)
            with pytest.raises(PermissionDenied):
                await report(3, NOTE, epoch=9)
            await trainer.upload_checkpoint_file(job.id, lease_epoch=claimed.lease_epoch, upload=upload)
            assert await app.reports.told(claimed.lease, after=2) == []
            await app.reports.withdraw(claimed.lease)
            with pytest.raises(Unauthenticated):
                await report(3, NOTE)
        async with client(other, "other") as stranger:
            with pytest.raises(PermissionDenied):
                await stranger.report_events(job.id, lease_epoch=1, first_sequence=1, events=[NOTE])


async def test_a_worker_of_an_overtaken_attempt_hears_so_at_every_trainer(
    app: TrainerApp, other: TrainerApp, registry: FakeRegistry
) -> None:
    job = await submit(app, registry, "succeed")
    claimed = await app.queue.claim()
    assert claimed is not None
    with app.inboxes.open(claimed.lease) as inbox:
        await app.reports.admit(claimed.lease, inbox.token)
        await app.queue.put_back(claimed, Retry.STOPPED, "overtaken")
        async with client(other, inbox.token) as trainer:
            with pytest.raises(FailedPrecondition, match="no attempt 1 runs here"):
                await trainer.report_events(job.id, lease_epoch=1, first_sequence=1, events=[NOTE])


async def test_the_worker_itself_knows_no_token(app: TrainerApp, registry: FakeRegistry, tmp_path: Path) -> None:
    async with running(app):
        job = await submit(app, registry, "succeed")
        await until_state(app, job, JobState.SUCCEEDED)
    environment = (run_dir(tmp_path, job) / "environment").read_text()
    assert "PATH" in environment
    assert "TUNELOOM_WORKER" not in environment


async def test_a_token_is_good_for_its_own_attempt_and_no_longer(app: TrainerApp, tmp_path: Path) -> None:
    payload = tmp_path / "weights"
    payload.write_bytes(b"weights")
    upload = await Upload.of(payload)
    with app.inboxes.open(Lease("job-a", 3)) as mine, app.inboxes.open(Lease("job-b", 1)):
        async with client(app, mine.token) as trainer:
            await trainer.upload_checkpoint_file("job-a", lease_epoch=3, upload=upload)
            with pytest.raises(PermissionDenied, match="is not the worker of attempt 1 of trainingJobs/job-b"):
                await trainer.upload_checkpoint_file("job-b", lease_epoch=1, upload=upload)
            with pytest.raises(PermissionDenied):
                await trainer.report_events("job-a", lease_epoch=4, first_sequence=1, events=[NOTE])
            with pytest.raises(PermissionDenied):
                await trainer.jobs()
        async with client(app, "other") as stranger:
            with pytest.raises(PermissionDenied):
                await stranger.report_events("job-a", lease_epoch=3, first_sequence=1, events=[NOTE])
        token = mine.token
    async with client(app, token) as trainer:
        with pytest.raises(Unauthenticated):
            await trainer.report_events("job-a", lease_epoch=3, first_sequence=1, events=[NOTE])


async def test_an_upload_that_is_not_what_was_announced_is_refused(app: TrainerApp, tmp_path: Path) -> None:
    payload = tmp_path / "weights"
    payload.write_bytes(b"weights")
    upload = await Upload.of(payload)
    payload.write_bytes(b"others!")
    with app.inboxes.open(Lease("job-a", 3)) as mine:
        async with client(app, mine.token) as trainer:
            with pytest.raises(InvalidArgument, match="another hash than announced"):
                await trainer.upload_checkpoint_file("job-a", lease_epoch=3, upload=upload)


async def test_whoever_reports_when_the_inbox_is_shut_hears_that(app: TrainerApp) -> None:
    with app.inboxes.open(Lease("job-a", 3)) as mine:
        async with client(app, mine.token) as trainer:
            reporting = asyncio.create_task(
                trainer.report_events("job-a", lease_epoch=3, first_sequence=1, events=[NOTE])
            )
            await eventually(lambda: not mine._waiting.empty())
            mine.shut()
            with pytest.raises(FailedPrecondition, match="no attempt 3 runs here"):
                await reporting


async def test_a_report_whose_caller_gave_up_is_not_stored_twice_when_it_is_sent_again() -> None:
    inbox = Inbox(Lease("job-a", 1))
    events = [LoggedEvent(1, 1, None), LoggedEvent(2, 1, None)]
    first = asyncio.create_task(inbox.report(events))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = asyncio.create_task(inbox.report(events))
    await asyncio.sleep(0)
    inbox.close()
    assert [event.sequence async for batch in inbox.batches() for event in batch] == [1, 2]
    assert await again == 2


async def test_what_a_worker_stored_itself_is_hashed_before_it_counts(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    async def end(grace_seconds: float) -> None: ...

    path = tmp_path / "weights"
    path.write_bytes(b"good")
    objects = registry.objects
    file = await objects.put_file(path, name="weights")
    with app.inboxes.open(Lease("job-a", 1)) as inbox:
        run = RemoteRun(inbox, objects, app.reports, end=end)
        await objects._place.overwrite(f"blobs/sha256/{file.sha256}", b"evil")  # as long as what it says it is
        with pytest.raises(NotFound, match="weights was told as stored and is not"):
            await run.store(CheckpointSaved(step=1, path="step-00000001", files=(file,)))
    assert not await objects.has_blob(file.sha256, size=file.size)
