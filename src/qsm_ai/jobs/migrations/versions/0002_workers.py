"""What workers are there and what a job needs of one; deadlines; idempotency keys."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def columns() -> tuple[sa.Column[Any], ...]:
    """What a job gets."""
    return (
        sa.Column("method", sa.String(24), nullable=False, server_default="qsm-vit"),
        sa.Column("work", sa.Float(53), nullable=False, server_default="0"),
        sa.Column("memory_mb", sa.Integer, nullable=False, server_default="0"),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("deadline_at", sa.Float(53)),
        sa.Column("idempotency_key", sa.String(64)),
    )


def upgrade() -> None:
    """Add columns to the jobs and fill those that follow from what is recorded; add the workers."""
    for column in columns():
        op.add_column("jobs", column)
    _fill()
    op.create_index("jobs_by_method", "jobs", ["method", "state", "finished_at"])
    op.create_index("jobs_by_idempotency_key", "jobs", ["owner", "idempotency_key"], unique=True)
    op.create_table(
        "workers",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("trouble", sa.JSON),
        sa.Column("trouble_since", sa.Float(53)),
    )


def downgrade() -> None:
    """Forget them again; jobs stay."""
    op.drop_table("workers")
    op.drop_index("jobs_by_idempotency_key", "jobs")
    op.drop_index("jobs_by_method", "jobs")
    for column in reversed(columns()):
        op.drop_column("jobs", column.name)


def _fill() -> None:
    connection = op.get_bind()
    jobs = sa.table(
        "jobs",
        *(sa.column(name) for name in ("id", "parameters", "summary", "uploads", "artefacts", "others")),
        sa.column("method"), sa.column("work"), sa.column("stored_bytes"),
    )  # fmt: skip
    for row in connection.execute(sa.select(jobs)).mappings().all():
        parameters, summary, *files = (
            json.loads(row[name]) if isinstance(row[name], str) else row[name]
            for name in ("parameters", "summary", "uploads", "artefacts", "others")
        )
        connection.execute(
            jobs.update()
            .where(jobs.c.id == row["id"])
            .values(
                method=parameters.get("method", "qsm-vit"),
                work=float(summary.get("voxels", 0)) * max(1, int(summary.get("echoes", 1))),
                stored_bytes=sum(int(entry["size"]) for entries in files for entry in entries),
            )
        )
