"""The operator's state of a node, and the epoch that its agent has confirmed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("confirmed_epoch", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("nodes", sa.Column("service", sa.JSON, nullable=False, server_default='{"kind": "open"}'))
