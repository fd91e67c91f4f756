"""How long a full disk has kept work from getting further."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("disk_full_since", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("jobs", "disk_full_since")
