"""Workers of attempts that another trainer runs: by which token they are known, what they told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "attempt_workers",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("lease_epoch", sa.Integer, nullable=False),
        sa.Column("token_sha256", sa.String, nullable=False, unique=True),
        sa.Column("goes_on_from", sa.JSON, nullable=False),
    )
    op.create_table(
        "worker_reports",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("lease_epoch", sa.Integer, primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("line", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("worker_reports")
    op.drop_table("attempt_workers")
