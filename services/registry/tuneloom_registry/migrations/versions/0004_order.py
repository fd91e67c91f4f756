"""Names in the order of their bytes, as SQLite keeps them, whatever the order of the PostgreSQL database."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = (
    ("collections", "name", 80),
    ("versions", "parent", 80),
    ("versions", "digest", 64),
    ("aliases", "parent", 80),
    ("aliases", "alias", 63),
)


def upgrade() -> None:
    _collate("C")


def downgrade() -> None:
    _collate("default")


def _collate(collation: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column, length in COLUMNS:
            op.alter_column(table, column, type_=sa.String(length, collation=collation))
