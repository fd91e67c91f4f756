"""One leased queue; events numbered in the order of their commits; lists without a query per row."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("builds", sa.Column("failed_attempts", sa.Integer, nullable=False, server_default="0"))
    op.add_column("builds", sa.Column("ready_time", sa.DateTime(timezone=True)))
    op.add_column("builds", sa.Column("unavailable_since", sa.DateTime(timezone=True)))
    op.create_index("ix_builds_state_sequence", "builds", ["state", "sequence"])
    op.create_index("ix_aliases_parent_version", "aliases", ["parent", "version"])
    op.add_column("collections", sa.Column("latest_version", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        "UPDATE collections SET latest_version = COALESCE("
        "(SELECT MAX(number) FROM versions WHERE versions.parent = collections.name), 0)"
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO counters (name, value) SELECT 'model_events', COALESCE(MAX(sequence), 0) FROM model_events")


def downgrade() -> None:
    op.drop_table("counters")
    op.drop_column("collections", "latest_version")
    op.drop_index("ix_aliases_parent_version", "aliases")
    op.drop_index("ix_builds_state_sequence", "builds")
    for column in ("unavailable_since", "ready_time", "failed_attempts"):
        op.drop_column("builds", column)
