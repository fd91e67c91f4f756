"""The few builds that wait or are held, apart from the many that ended: PostgreSQL would walk through all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

PARTS = {
    "ix_builds_waiting": "state = 'queued'",
    "ix_builds_held": "state = 'running'",
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name, which in PARTS.items():
            op.create_index(name, "builds", ["sequence"], postgresql_where=sa.text(which))


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in PARTS:
            op.drop_index(name, "builds")
