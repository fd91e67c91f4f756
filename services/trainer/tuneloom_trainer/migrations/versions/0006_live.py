"""The few jobs that wait or are held, apart from the many that ended: PostgreSQL would walk through all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

PARTS = {
    "ix_jobs_waiting": "state = 'queued'",
    "ix_jobs_held": "state IN ('validating', 'running', 'pausing', 'cancelling')",
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name, which in PARTS.items():
            op.create_index(name, "jobs", ["sequence"], postgresql_where=sa.text(which))


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in PARTS:
            op.drop_index(name, "jobs")
