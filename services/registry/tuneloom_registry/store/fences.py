"""The highest epoch seen of every scope: a writer below it has lost its lease and registers nothing."""

from __future__ import annotations

import sqlalchemy as sa

from tuneloom_common.database import Transaction
from tuneloom_common.errors import FailedPrecondition
from tuneloom_registry.tables import fences
from tuneloom_registry.versions import Fence


async def pass_fence(db: Transaction, fence: Fence) -> None:
    """Raises LEASE_LOST below the highest epoch seen; raises that epoch otherwise."""
    if await db.insert_new(fences, {"scope": fence.scope, "epoch": fence.epoch}):
        return
    seen = await db.scalar(sa.select(fences.c.epoch).where(fences.c.scope == fence.scope).with_for_update())
    if fence.epoch < seen:
        raise FailedPrecondition(f"{fence.lost} to epoch {seen}; nothing was registered", reason="LEASE_LOST")
    if fence.epoch > seen:
        await db.execute(fences.update().where(fences.c.scope == fence.scope).values(epoch=fence.epoch))
