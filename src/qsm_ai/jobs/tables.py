"""The tables of the database, as the newest migration leaves them."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("uploads", sa.JSON, nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lost", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("queued_at", sa.Float(53), nullable=False),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("stage", sa.String(40)),
    sa.Column("fraction", sa.Float(53), nullable=False, default=0.0),
    sa.Column("note", sa.Text),
    sa.Column("problem", sa.JSON(none_as_null=True)),
    sa.Column("scores", sa.JSON, nullable=False, default=dict),
    sa.Column("timings", sa.JSON, nullable=False, default=dict),
    sa.Column("warnings", sa.JSON, nullable=False, default=list),
    sa.Column("artefacts", sa.JSON, nullable=False, default=list),
    sa.Column("others", sa.JSON, nullable=False, default=list),
    sa.Column("request_id", sa.String(64)),
    sa.Column("worker", sa.String(200)),
    sa.Column("heartbeat_at", sa.Float(53)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("method", sa.String(24), nullable=False, server_default="qsm-vit"),
    sa.Column("work", sa.Float(53), nullable=False, server_default="0"),
    sa.Column("memory_mb", sa.Integer, nullable=False, server_default="0"),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("deadline_at", sa.Float(53)),
    sa.Column("idempotency_key", sa.String(64)),
    sa.Index("jobs_by_state", "state", "queued_at"),
    sa.Index("jobs_by_owner", "owner", "created_at"),
    sa.Index("jobs_by_method", "method", "state", "finished_at"),
    sa.Index("jobs_by_idempotency_key", "owner", "idempotency_key", unique=True),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(40), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("events_by_job", "job_id", "id"),
    sqlite_autoincrement=True,
)

OWNERS = sa.Table(
    "owners",
    METADATA,
    sa.Column("owner", sa.String(200), primary_key=True),
    sa.Column("served_at", sa.Float(53), nullable=False),
)

API_KEYS = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53)),
    sa.Column("revoked_at", sa.Float(53)),
    sa.Column("last_used_at", sa.Float(53)),
    sa.Index("api_keys_by_owner", "owner"),
)

WORKERS = sa.Table(
    "workers",
    METADATA,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False),
    sa.Column("seen_at", sa.Float(53), nullable=False),
    sa.Column("draining", sa.Boolean, nullable=False),
    sa.Column("trouble", sa.JSON(none_as_null=True)),
    sa.Column("trouble_since", sa.Float(53)),
)

UPLOADS = sa.Table(
    "uploads",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("received", sa.BigInteger, nullable=False, default=0),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
    sa.Column("parts", sa.JSON, nullable=False, server_default="[]"),
    sa.Index("uploads_by_owner", "owner", "created_at"),
    sa.Index("uploads_by_expiry", "expires_at"),
)
