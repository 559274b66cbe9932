"""Runs with their history, nodes, tombstones and job snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("resume_number", sa.Integer, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("requirements", sa.JSON, nullable=False),
        sa.Column("policies", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("phase_data", sa.JSON, nullable=False),
        sa.Column("outcome", sa.LargeBinary),
        sa.Column("stop", sa.JSON),
        sa.Column("times", sa.JSON, nullable=False),
        sa.Column("reported", sa.Boolean, nullable=False),
        sa.Column("snapshot_id", sa.String(64), nullable=False),
    )
    op.create_index("runs_by_snapshot", "runs", ["snapshot_id"])
    op.create_table(
        "run_events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("run_events_by_run", "run_events", ["run_id", "seq"])
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(128), primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("installation", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("drivers", sa.JSON, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
        sa.Column("last_heard", sa.Float, nullable=False),
    )
    op.create_table(
        "tombstones",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
    )
