"""Databases of a given size, as years of use would leave them, filled by SQL."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import sqlalchemy as sa

from tests.databases.kinds import Databases
from tuneloom_common.database import Database, Limits, Transaction, open_database
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.notifier import Notifier
from tuneloom_registry import tables as registry_tables
from tuneloom_registry.store import BuildStore, VersionStore
from tuneloom_trainer import tables as trainer_tables
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.store import JobQueue, JobStore

EVENTS_PER_ITEM = 100
HELD = 8
QUEUED_SHARE = 2  # every second job or build waits, the others are done
LEASE = timedelta(days=1)
PATIENT = Limits(statement_seconds=600)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MODEL = "models/big"
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "


@dataclass(frozen=True, slots=True)
class Stores:
    """One model with `size` versions and as many aliases, `size` other models, jobs and builds, 100 events for each."""

    size: int
    databases: tuple[Database, Database]
    versions: VersionStore
    builds: BuildStore
    jobs: JobStore
    queue: JobQueue

    async def close(self) -> None:
        for database in self.databases:
            await database.dispose()


async def filled(size: int, databases: Databases) -> Stores:
    registry = await open_database(databases.empty(), migrations="tuneloom_registry.migrations", limits=PATIENT)
    trainer = await open_database(databases.empty(), migrations="tuneloom_trainer.migrations", limits=PATIENT)
    async with registry.write() as db:
        await _fill_versions(db, size)
        await _fill_builds(db, size)
    async with trainer.write() as db:
        await _fill_jobs(db, size)
    for database in (registry, trainer):  # what PostgreSQL does by itself after a while
        async with database.write() as db:
            await db.execute(sa.text("ANALYZE"))
    notifier = Notifier()
    return Stores(
        size,
        (registry, trainer),
        VersionStore(registry),
        BuildStore(registry, lease=LEASE),
        JobStore(trainer, notifier=notifier),
        JobQueue(trainer, lease=LEASE, max_attempts=5, notifier=notifier),
    )


@cache
def manifest(number: int) -> Manifest:
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    files = tuple(FileEntry(path=f"part-{i}.safetensors", size=number, sha256=sha256) for i in range(4))
    return Manifest(kind=Kind.ADAPTER, files=files)


async def _fill_versions(db: Transaction, size: int) -> None:
    names = [MODEL, *(f"models/m-{i:06}" for i in range(size))]
    latest = {MODEL: size}
    await db.execute(
        registry_tables.collections.insert(),
        [{"name": n, "training_job": "", "create_time": NOW, "latest_version": latest.get(n, 1)} for n in names],
    )
    many = [(MODEL, number) for number in range(1, size + 1)] + [(name, 1) for name in names[1:]]
    manifests = {number: manifest(number) for number in range(1, size + 1)}
    await db.execute(
        registry_tables.versions.insert(),
        [
            {
                "parent": parent,
                "number": number,
                "digest": manifests[number].digest,
                "manifest_json": manifests[number].canonical().decode(),
                "create_time": NOW,
            }
            for parent, number in many
        ],
    )
    aliases = [(MODEL, f"a-{number:06}", number) for number in range(1, size + 1)]
    aliases += [(name, "default", 1) for name in names]
    await db.execute(
        registry_tables.aliases.insert(),
        [
            {"parent": parent, "alias": alias, "version": number, "update_time": NOW}
            for parent, alias, number in aliases
        ],
    )
    statement = "INSERT INTO model_events (sequence, model, alias, version) SELECT i, 'models/big', 'default', 1 FROM n"
    await db.execute(sa.text(_NUMBERS + statement), {"count": size * EVENTS_PER_ITEM})
    await db.execute(sa.text("UPDATE counters SET value = :value"), {"value": size * EVENTS_PER_ITEM})


def _state(i: int, size: int, done: str) -> tuple[str, datetime | None]:
    """The oldest are done or run, the newest wait."""
    if i < HELD:
        return "running", NOW + timedelta(days=3650)
    return (done, None) if i < size - size // QUEUED_SHARE else ("queued", None)


async def _fill_builds(db: Transaction, size: int) -> None:
    spec = {
        "action": "merge",
        "source": f"{MODEL}/versions/1",
        "max_shard_size_bytes": 1,
        "proof_prompts": ["Hello!"],
        "min_greedy_agreement": 0.99,
    }
    rows = []
    for i in range(size):
        state, expires = _state(i, size, "succeeded")
        rows.append(
            {
                "id": f"build-{i:06}",
                "request_id": f"r-{i}",
                "spec": spec,
                "target_model": MODEL,
                "target_aliases": [],
                "state": state,
                "lease_expire_time": expires,
                "create_time": NOW,
            }
        )
    await db.execute(registry_tables.builds.insert(), rows)


async def _fill_jobs(db: Transaction, size: int) -> None:
    spec = TrainingSpec().model_dump(mode="json")
    rows = []
    for i in range(size):
        state, expires = _state(i, size, "succeeded")
        rows.append(
            {
                "id": f"job-{i:06}",
                "request_id": f"r-{i}",
                "base_model": "seed",
                "base_version": "models/seed/versions/1",
                "base_digest": "ab" * 32,
                "dataset_version": "datasets/rows/versions/1",
                "dataset_digest": "cd" * 32,
                "output_model": MODEL,
                "recipe": "lora",
                "spec": spec,
                "merge": False,
                "state": state,
                "lease_expire_time": expires,
                "event_sequence": EVENTS_PER_ITEM,
                "create_time": NOW,
                "update_time": NOW,
            }
        )
    await db.execute(trainer_tables.jobs.insert(), rows)
    body = """'{"step"\\: 1, "total_steps"\\: 100, "loss"\\: 1.5, "tokens_per_second"\\: 1000.0}'"""
    events = (
        "INSERT INTO job_events (job_id, sequence, kind, body, create_time) "
        f"SELECT jobs.id, i, 'progress', {body}, jobs.create_time FROM jobs, n"
    )
    await db.execute(sa.text(_NUMBERS + events).bindparams(count=EVENTS_PER_ITEM))
    rows = [
        {"job_id": f"job-{i:06}", "step": step, "version": f"{MODEL}/versions/1", "loss": 1.0, "create_time": NOW}
        for i in range(size)
        for step in (10, 20, 30)
    ]
    await db.execute(trainer_tables.checkpoints.insert(), rows)
