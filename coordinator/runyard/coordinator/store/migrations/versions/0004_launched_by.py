"""The client that launched each run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("launched_by", sa.Text, nullable=False, server_default=""))
