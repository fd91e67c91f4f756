"""Composition root of the registry process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog

from tuneloom.registry.v1 import registry_pb2_grpc
from tuneloom_common import logging
from tuneloom_common.addresses import join
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.database import open_database
from tuneloom_common.errors import TuneloomError
from tuneloom_common.grpc import bind, build_server, run_until, stop_signals
from tuneloom_common.notifier import Notifier
from tuneloom_common.objects import ObjectStore
from tuneloom_common.principals import Principals
from tuneloom_common.receiving import Receiving
from tuneloom_common.settings import load
from tuneloom_common.work_dirs import held
from tuneloom_data.limits import Limits
from tuneloom_registry.datasets import DatasetChecks
from tuneloom_registry.runner import Runner, Transforms
from tuneloom_registry.service import SCOPES, RegistryService
from tuneloom_registry.settings import RegistrySettings
from tuneloom_registry.store import BuildStore, ObjectStoreRecord, VersionStore

SERVICE_NAME = "tuneloom.registry.v1.RegistryService"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RegistryApp:
    """A started registry."""

    server: grpc.aio.Server
    port: int
    runner: Runner
    versions: VersionStore
    builds: BuildStore
    objects: ObjectStore


async def build(settings: RegistrySettings, stack: AsyncExitStack) -> RegistryApp:
    """Opens the stores and binds the port; the stack closes what was opened."""
    database = await open_database(
        settings.database_url.get_secret_value(),
        migrations="tuneloom_registry.migrations",
        limits=settings.database_limits,
    )
    stack.push_async_callback(database.dispose)
    notifier = Notifier()
    await stack.enter_async_context(database.relayed(notifier))
    versions = VersionStore(database, notifier=notifier)
    builds = BuildStore(
        database,
        lease=timedelta(seconds=settings.build_lease_seconds),
        max_attempts=settings.build_max_attempts,
        notifier=notifier,
    )
    record = ObjectStoreRecord(database)
    locked = settings.objects_put_if_absent == "database"
    objects = ObjectStore(settings.objects_url, settings.s3, lock=record.locked if locked else None)
    await objects.recognise(record, setting="TUNELOOM_REGISTRY_OBJECTS_URL")
    staging = settings.work_dir / "uploads"
    shutil.rmtree(staging, ignore_errors=True)  # what a kill left half received
    staging.mkdir(parents=True, mode=0o700)
    service = RegistryService(
        versions=versions,
        builds=builds,
        objects=objects,
        receiving=Receiving(
            objects,
            staging,
            settings.max_upload_bytes,
            settings.upload_idle_seconds,
            limit_setting="TUNELOOM_REGISTRY_MAX_UPLOAD_BYTES",
        ),
        datasets=DatasetChecks(
            objects,
            staging,
            Limits(
                file_bytes=settings.max_dataset_bytes,
                row_bytes=settings.max_row_bytes,
                memory_bytes=settings.check_memory_bytes,
                seconds=settings.check_seconds,
            ),
            asyncio.Semaphore(settings.check_slots),
        ),
    )
    server = await build_server(
        domain="registry.tuneloom",
        principals=Principals(settings.principals, admin_token=settings.token),
        scopes=SCOPES,
        services=[
            (
                SERVICE_NAME,
                lambda server: registry_pb2_grpc.add_RegistryServiceServicer_to_server(service, server),
            )
        ],
    )
    port = bind(server, join(settings.host, settings.port), setting="TUNELOOM_REGISTRY_PORT", tls=settings.tls)
    runner = Runner(
        versions=versions,
        builds=builds,
        objects=objects,
        cache=BlobCache(objects, settings.blob_cache_dir, max_bytes=settings.blob_cache_bytes),
        transforms=Transforms(
            command=settings.build_command,
            work_dir=settings.work_dir / "builds",
            proof_dtype=settings.proof_dtype,
            time_limit_seconds=settings.build_timeout_seconds,
        ),
        slots=settings.build_slots,
        lease_seconds=settings.build_lease_seconds,
    )
    return RegistryApp(server, port, runner, versions, builds, objects)


async def serve(settings: RegistrySettings) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = stop_signals()
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.work_dir, setting="TUNELOOM_REGISTRY_WORK_DIR"))
        app = await build(settings, stack)
        await app.server.start()
        log.info(f"registry listens on {settings.shown(app.port)}, objects in {settings.objects_url}")
        await run_until(stop, app.server, app.runner.run())


def main() -> None:
    settings = load(RegistrySettings)
    logging.configure("registry", json=settings.log_json, level=settings.log_level)
    try:
        asyncio.run(serve(settings))
    except TuneloomError as error:
        raise SystemExit(f"registry: {error}") from None
