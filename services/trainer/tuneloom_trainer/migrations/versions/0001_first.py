"""Jobs, their events and their checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("request_id", sa.String(128), unique=True),
        sa.Column("base_model", sa.String(160), nullable=False),
        sa.Column("base_version", sa.String(100), nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("dataset_version", sa.String(100), nullable=False),
        sa.Column("dataset_digest", sa.String(64), nullable=False),
        sa.Column("output_model", sa.String(80), nullable=False),
        sa.Column("recipe", sa.String(63), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("merge", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("error_reason", sa.String(63), nullable=False, server_default=""),
        sa.Column("progress", sa.JSON),
        sa.Column("result_version", sa.String(100), nullable=False, server_default=""),
        sa.Column("merged_version", sa.String(100), nullable=False, server_default=""),
        sa.Column("lease_epoch", sa.Integer, nullable=False, server_default="0"),
        sa.Column("crash_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_expire_time", sa.DateTime(timezone=True)),
        sa.Column("worker_sequence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("event_sequence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("loss", sa.Float, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
