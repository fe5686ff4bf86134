"""Which objects an upload is made of."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the names of the parts.

    Those of uploads that are on their way were not recorded. Such an upload says that it holds nothing, so
    that its client sends it again; one that lies at the object store keeps what it has.
    """
    op.add_column("uploads", sa.Column("parts", sa.JSON, nullable=False, server_default="[]"))
    op.execute("UPDATE uploads SET received = 0")


def downgrade() -> None:
    """Forget them; the parts' names begin with where they belong, and sort as before."""
    op.drop_column("uploads", "parts")
