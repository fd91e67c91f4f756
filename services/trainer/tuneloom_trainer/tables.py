"""The trainer's tables, as the newest migration leaves them."""

from __future__ import annotations

import sqlalchemy as sa

from tuneloom_common.database import Words
from tuneloom_common.queue import lease_columns

metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("request_id", sa.String),
    sa.Column("request", sa.JSON(none_as_null=True)),
    sa.Column("base_model", sa.String),
    sa.Column("base_version", sa.String),
    sa.Column("base_digest", sa.String),
    sa.Column("dataset_version", sa.String),
    sa.Column("dataset_digest", sa.String),
    sa.Column("output_model", sa.String),
    sa.Column("recipe", sa.String),
    sa.Column("spec", sa.JSON),
    sa.Column("merge", sa.Boolean),
    sa.Column("promote", sa.Boolean),
    sa.Column("state", sa.String),
    sa.Column("error", Words),
    sa.Column("error_reason", Words),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("result_version", sa.String),
    sa.Column("merged_version", sa.String),
    *lease_columns(),
    sa.Column("worker_sequence", sa.Integer),
    sa.Column("event_sequence", sa.Integer),
    sa.Column("create_time", sa.DateTime(timezone=True)),
    sa.Column("update_time", sa.DateTime(timezone=True)),
    sa.Column("end_time", sa.DateTime(timezone=True)),
)
job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String),
    sa.Column("body", sa.JSON),
    sa.Column("create_time", sa.DateTime(timezone=True)),
)
job_logs = sa.Table(
    "job_logs",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("text", Words),
    sa.Column("truncated", sa.Boolean),
)
attempt_workers = sa.Table(
    "attempt_workers",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("lease_epoch", sa.Integer),
    sa.Column("token_sha256", sa.String),
    sa.Column("goes_on_from", sa.JSON),
)
worker_reports = sa.Table(
    "worker_reports",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("lease_epoch", sa.Integer, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("line", sa.Text),
)
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("version", sa.String),
    sa.Column("loss", sa.Float),
    sa.Column("lease_epoch", sa.Integer),
    sa.Column("last", sa.Boolean),
    sa.Column("create_time", sa.DateTime(timezone=True)),
)
