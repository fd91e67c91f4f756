"""Composition root of the trainer process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog
from pydantic import SecretStr

from tuneloom.registry.v1 import registry_pb2_grpc
from tuneloom.trainer.v1 import trainer_pb2_grpc
from tuneloom_common import logging
from tuneloom_common.database import open_database
from tuneloom_common.errors import TuneloomError
from tuneloom_common.grpc import bind, build_server, open_channel, run_until, stop_signals
from tuneloom_common.objects import ObjectStore
from tuneloom_common.principals import Principals
from tuneloom_common.settings import load
from tuneloom_trainer.bases import Bases
from tuneloom_trainer.job_logs import JobLogs
from tuneloom_trainer.launcher import Launcher
from tuneloom_trainer.publishing import Publisher
from tuneloom_trainer.registry_client import RegistryClient
from tuneloom_trainer.runner import Runner
from tuneloom_trainer.service import SCOPES, TrainerService
from tuneloom_trainer.settings import TrainerSettings
from tuneloom_trainer.specs import load_recipes
from tuneloom_trainer.store import JobStore

SERVICE_NAME = "tuneloom.trainer.v1.TrainerService"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TrainerApp:
    """A started trainer."""

    server: grpc.aio.Server
    port: int
    runner: Runner
    store: JobStore


async def build(settings: TrainerSettings, stack: AsyncExitStack) -> TrainerApp:
    """Opens the stores and binds the port; the stack closes what was opened."""
    database = await open_database(settings.database_url, migrations="tuneloom_trainer.migrations")
    stack.push_async_callback(database.dispose)
    store = JobStore(database, lease=timedelta(seconds=settings.lease_seconds))
    objects = ObjectStore(settings.objects_url)
    channel = open_channel(settings.registry_address, token=_plain(settings.registry_token))
    stack.push_async_callback(channel.close)
    registry = RegistryClient(registry_pb2_grpc.RegistryServiceStub(channel))
    runs_dir = settings.work_dir / "runs"
    service = TrainerService(
        store=store,
        registry=registry,
        recipes=load_recipes(),
        max_lora_rank=settings.max_lora_rank,
        logs=JobLogs(runs_dir),
        bases=Bases(objects),
    )
    server = await build_server(
        domain="trainer.tuneloom",
        principals=Principals(settings.principals, admin_token=settings.token),
        scopes=SCOPES,
        services=[
            (
                SERVICE_NAME,
                lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(service, server),
            )
        ],
    )
    port = bind(server, f"{settings.host}:{settings.port}", setting="TUNELOOM_TRAINER_PORT")
    runner = Runner(
        store=store,
        launcher=Launcher(
            objects=objects,
            runs_dir=runs_dir,
            command=settings.worker_command,
            device=settings.worker_device,
            threads=settings.worker_threads,
        ),
        publisher=Publisher(objects=objects, registry=registry),
        registry=registry,
        slots=settings.slots,
        lease_seconds=settings.lease_seconds,
        stop_grace_seconds=settings.stop_grace_seconds,
        max_attempts=settings.max_attempts,
    )
    return TrainerApp(server, port, runner, store)


async def serve(settings: TrainerSettings) -> None:
    """Runs until SIGTERM or SIGINT, then lets the workers save."""
    stop = stop_signals()
    async with AsyncExitStack() as stack:
        app = await build(settings, stack)
        await app.server.start()
        log.info(f"trainer listens on {settings.host}:{app.port}, {settings.slots} job at a time")
        await run_until(stop, app.server, app.runner.run())


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def main() -> None:
    settings = load(TrainerSettings)
    logging.configure("trainer", json=settings.log_json, level=settings.log_level)
    try:
        asyncio.run(serve(settings))
    except TuneloomError as error:
        raise SystemExit(f"trainer: {error}") from None
