"""Requirement layers and routes of runs, and the resources of nodes."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for column in (
        sa.Column("layers", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("route", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("repository", sa.Text, nullable=False, server_default=""),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("share", sa.Text, nullable=False, server_default=""),
        sa.Column("avoided", sa.JSON, nullable=False, server_default="[]"),
    ):
        op.add_column("runs", column)
    op.add_column("nodes", sa.Column("offer", sa.JSON, nullable=False, server_default="{}"))
    _rewrite("runs", "run_id", "requirements", ("requirements",), _requirements)
    _rewrite("nodes", "node_id", "offer", ("labels", "drivers", "slots"), _offer)
    with op.batch_alter_table("nodes") as table:
        for column_name in ("labels", "drivers", "slots"):
            table.drop_column(column_name)


def _rewrite(table: str, key: str, target: str, sources: tuple[str, ...], change: Any) -> None:
    connection = op.get_bind()
    rewritten = sa.table(table, *(sa.column(name) for name in (key, target, *sources)))
    rows = connection.execute(sa.select(rewritten.c[key], *(rewritten.c[name] for name in sources))).all()
    for name, *values in rows:
        at_row = sa.update(rewritten).where(rewritten.c[key] == name)
        connection.execute(at_row.values({target: json.dumps(change(*values))}))


def _requirements(text: str) -> dict[str, Any]:
    old = json.loads(text)
    rules = [{"key": key, "operator": "=", "values": [value]} for key, value in old.get("labels", [])]
    return {**old, "labels": rules}


def _offer(labels: str, drivers: str, slots: int) -> dict[str, Any]:
    amounts = [["slots", slots]] if slots else []
    return {
        "labels": json.loads(labels),
        "drivers": json.loads(drivers),
        "resources": {"amounts": amounts},
    }
