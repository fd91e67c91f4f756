"""The end of each job's log, for trainers that did not run its worker."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "job_logs",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("job_logs")
