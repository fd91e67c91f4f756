"""The registry's tables, as the newest migration leaves them."""

from __future__ import annotations

import sqlalchemy as sa

from tuneloom_common.database import Words
from tuneloom_common.queue import lease_columns

metadata = sa.MetaData()

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("request_id", sa.String),
    sa.Column("training_job", sa.String),
    sa.Column("create_time", sa.DateTime(timezone=True)),
    sa.Column("latest_version", sa.Integer),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("parent", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String),
    sa.Column("manifest_json", sa.Text),
    sa.Column("create_time", sa.DateTime(timezone=True)),
)
aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("parent", sa.String, primary_key=True),
    sa.Column("alias", sa.String, primary_key=True),
    sa.Column("version", sa.Integer),
    sa.Column("update_time", sa.DateTime(timezone=True)),
)
model_events = sa.Table(
    "model_events",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("model", sa.String),
    sa.Column("alias", sa.String),
    sa.Column("version", sa.Integer),
)
fences = sa.Table(
    "fences",
    metadata,
    sa.Column("scope", sa.String, primary_key=True),
    sa.Column("epoch", sa.Integer),
)
counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.Integer),
)
object_store = sa.Table(
    "object_store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("identity", sa.String),
)
builds = sa.Table(
    "builds",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("request_id", sa.String),
    sa.Column("spec", sa.JSON),
    sa.Column("target_model", sa.String),
    sa.Column("target_aliases", sa.JSON),
    sa.Column("fence_scope", sa.String),
    sa.Column("fence_epoch", sa.Integer),
    sa.Column("state", sa.String),
    sa.Column("error", Words),
    sa.Column("progress", Words),
    sa.Column("result_version", sa.String),
    sa.Column("cancel_requested", sa.Boolean),
    *lease_columns(),
    sa.Column("create_time", sa.DateTime(timezone=True)),
    sa.Column("end_time", sa.DateTime(timezone=True)),
)
