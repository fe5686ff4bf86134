"""Jobs, their events, and who was served when."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("uploads", sa.JSON, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("queued_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("stage", sa.String(40)),
        sa.Column("fraction", sa.Float(53), nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("problem", sa.JSON),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.Column("timings", sa.JSON, nullable=False),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("artefacts", sa.JSON, nullable=False),
        sa.Column("others", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("worker", sa.String(200)),
        sa.Column("heartbeat_at", sa.Float(53)),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "queued_at"])
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_job", "events", ["job_id", "id"])
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("served_at", sa.Float(53), nullable=False),
    )


def downgrade() -> None:
    """Drop everything."""
    for table in ("owners", "events", "jobs"):
        op.drop_table(table)
