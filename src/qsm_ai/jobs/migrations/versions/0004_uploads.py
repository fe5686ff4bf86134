"""Uploads that come before their job."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, where a backend has not made it by itself, as they did before this migration."""
    if sa.inspect(op.get_bind()).has_table("uploads"):
        return
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
    op.create_index("uploads_by_owner", "uploads", ["owner", "created_at"])
    op.create_index("uploads_by_expiry", "uploads", ["expires_at"])


def downgrade() -> None:
    """Forget them; their files are swept as nobody's."""
    op.drop_table("uploads")
