"""One leased queue; worker events counted per claim; checkpoints know their claim; requests and promotion kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("failed_attempts", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET failed_attempts = crash_count")
    op.drop_column("jobs", "crash_count")
    op.add_column("jobs", sa.Column("ready_time", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("unavailable_since", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("request", sa.JSON))
    op.add_column("jobs", sa.Column("promote", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_index("ix_jobs_state_sequence", "jobs", ["state", "sequence"])
    op.add_column("checkpoints", sa.Column("lease_epoch", sa.Integer, nullable=False, server_default="0"))
    op.add_column("checkpoints", sa.Column("last", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("checkpoints", "last")
    op.drop_column("checkpoints", "lease_epoch")
    op.drop_index("ix_jobs_state_sequence", "jobs")
    op.add_column("jobs", sa.Column("crash_count", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET crash_count = failed_attempts")
    for column in ("promote", "request", "unavailable_since", "ready_time", "failed_attempts"):
        op.drop_column("jobs", column)
