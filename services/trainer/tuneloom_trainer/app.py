"""Composition root of the trainer process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog

from tuneloom.trainer.v1 import trainer_pb2_grpc
from tuneloom_common import logging
from tuneloom_common.addresses import join
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.database import open_database
from tuneloom_common.errors import TuneloomError
from tuneloom_common.grpc import bind, build_server, run_until, stop_signals
from tuneloom_common.notifier import Notifier
from tuneloom_common.objects import ObjectStore
from tuneloom_common.principals import IssuedTokens, Principal, Principals
from tuneloom_common.receiving import Receiving
from tuneloom_common.settings import load
from tuneloom_common.work_dirs import held
from tuneloom_trainer.attempts import Parts
from tuneloom_trainer.bases import Bases
from tuneloom_trainer.inboxes import Inboxes, worker_of
from tuneloom_trainer.job_logs import JobLogs
from tuneloom_trainer.launchers.local import LocalLauncher
from tuneloom_trainer.permissions import Permissions
from tuneloom_trainer.publishing import Publisher
from tuneloom_trainer.runner import Runner
from tuneloom_trainer.service import SCOPES, TrainerService
from tuneloom_trainer.settings import TrainerSettings
from tuneloom_trainer.specs import load_recipes
from tuneloom_trainer.store import JobQueue, JobStore, Reports
from tuneloom_trainer.submission import Submission

SERVICE_NAME = "tuneloom.trainer.v1.TrainerService"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TrainerApp:
    """A started trainer."""

    server: grpc.aio.Server
    port: int
    runner: Runner
    store: JobStore
    queue: JobQueue
    inboxes: Inboxes
    reports: Reports


async def build(settings: TrainerSettings, stack: AsyncExitStack) -> TrainerApp:
    """Opens the stores and binds the port; the stack closes what was opened."""
    database = await open_database(
        settings.database_url.get_secret_value(),
        migrations="tuneloom_trainer.migrations",
        limits=settings.database_limits,
    )
    stack.push_async_callback(database.dispose)
    notifier, tokens = Notifier(), IssuedTokens()
    await stack.enter_async_context(database.relayed(notifier))
    inboxes = Inboxes(tokens)
    store, reports = JobStore(database, notifier=notifier), Reports(database, notifier=notifier)
    objects = ObjectStore(settings.objects_url, settings.s3)
    await objects.check()
    registry = settings.open_registry()
    stack.push_async_callback(registry.close)
    runs_dir, staging, recipes = settings.work_dir / "runs", settings.work_dir / "uploads", load_recipes()
    shutil.rmtree(staging, ignore_errors=True)  # what a kill left half received
    staging.mkdir(parents=True, mode=0o700)
    launcher = LocalLauncher(
        objects=objects,
        cache=BlobCache(objects, settings.blob_cache_dir, max_bytes=settings.blob_cache_bytes),
        runs_dir=runs_dir,
        command=settings.worker_command,
        device=settings.worker_device,
        threads=settings.worker_threads,
    )
    service = TrainerService(
        store=store,
        submission=Submission(
            registry=registry, recipes=recipes, bases=Bases(objects), max_lora_rank=settings.max_lora_rank
        ),
        recipes=recipes,
        inboxes=inboxes,
        reports=reports,
        receiving=Receiving(
            objects,
            staging,
            settings.max_upload_bytes,
            settings.upload_idle_seconds,
            limit_setting="TUNELOOM_TRAINER_MAX_UPLOAD_BYTES",
        ),
        logs=JobLogs(launcher, store),
        permissions=Permissions(objects, settings.worker_permission_seconds, settings.max_upload_bytes),
    )

    async def elsewhere(token_sha256: bytes) -> Principal | None:
        lease = await reports.lease_of(token_sha256)
        return worker_of(lease) if lease else None

    server = await build_server(
        domain="trainer.tuneloom",
        principals=Principals(settings.principals, admin_token=settings.token, issued=tokens, elsewhere=elsewhere),
        scopes=SCOPES,
        services=[
            (
                SERVICE_NAME,
                lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(service, server),
            )
        ],
    )
    port = bind(server, join(settings.host, settings.port), setting="TUNELOOM_TRAINER_PORT", tls=settings.tls)
    parts = Parts(
        queue=JobQueue(
            database,
            lease=timedelta(seconds=settings.lease_seconds),
            max_attempts=settings.max_attempts,
            notifier=notifier,
        ),
        launcher=launcher,
        publisher=Publisher(objects=objects, registry=registry),
        inboxes=inboxes,
        stop_grace_seconds=settings.stop_grace_seconds,
        validation_timeout_seconds=settings.validation_timeout_seconds,
    )
    runner = Runner(
        store=store, parts=parts, notifier=notifier, slots=settings.slots, lease_seconds=settings.lease_seconds
    )
    return TrainerApp(server, port, runner, store, parts.queue, inboxes, reports)


async def serve(settings: TrainerSettings) -> None:
    """Runs until SIGTERM or SIGINT, then lets the workers save."""
    stop = stop_signals()
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.work_dir, setting="TUNELOOM_TRAINER_WORK_DIR"))
        app = await build(settings, stack)
        await app.server.start()
        log.info(f"trainer listens on {settings.shown(app.port)}, {settings.slots or 'no'} job at a time")
        await run_until(stop, app.server, app.runner.run())


def main() -> None:
    settings = load(TrainerSettings)
    logging.configure("trainer", json=settings.log_json, level=settings.log_level)
    try:
        asyncio.run(serve(settings))
    except TuneloomError as error:
        raise SystemExit(f"trainer: {error}") from None
