"""Reading and writing the account. Synchronous: the runtime calls it from one thread at a time."""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, Table, bindparam, delete, insert, select
from sqlalchemy.exc import DatabaseError, OperationalError

from runyard.coordinator.core.effects import DropRun, Effect, SaveNode, SaveRun, SaveTombstone
from runyard.coordinator.core.model import Finished, Node, Run, Tombstone
from runyard.coordinator.store.engine import DATABASE, StateLock, damaged, open_sqlite
from runyard.coordinator.store.rows import Row, node_of, node_row, phase_name, run_of, run_row
from runyard.coordinator.store.schema import nodes, run_events, runs, snapshots, tombstones

_FULL = "the disk of the coordinator's state_directory is full"


class StoreFull(Exception):
    """The disk has no room. Nothing was written, and what is on disk is whole."""


@dataclass(frozen=True)
class Account:
    """All that a coordinator takes up at its start."""

    runs: list[Run]
    nodes: list[Node]
    tombstones: dict[str, Tombstone]


class Store:
    """The database of one coordinator, held exclusively.

    Args:
        directory: The state directory; made if it is not there.

    Attributes:
        has_old_secrets: Whether the log beside the database may hold secrets of runs that are over.

    Raises:
        StoreError: The directory is not writable or in use, or the database is damaged or too new.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / DATABASE
        self.has_old_secrets = True
        self._lock = StateLock(directory)
        try:
            self._engine: Engine = open_sqlite(self._path)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Closes the database and lets another coordinator have it."""
        self._engine.dispose()
        self._lock.release()

    def load(self, monotonic: float) -> Account:
        """Reads the whole account; deadlines count from `monotonic` on.

        Raises:
            StoreError: A row makes no sense: SQLite has no checksums, so not every damage shows at the start.
        """
        try:
            with self._engine.connect() as connection:
                return _load(connection, monotonic)
        except (DatabaseError, DecodeError, ValueError, KeyError, TypeError) as error:
            raise damaged(self._path, str(error)) from error

    def write(self, effects: Iterable[Effect]) -> None:
        """Writes the effects of many decisions in one transaction.

        Raises:
            StoreFull: The disk is full; nothing of it was written.
        """
        batch = list(effects)
        if any(isinstance(effect, SaveRun) and isinstance(effect.run.phase, Finished) for effect in batch):
            self.has_old_secrets = True
        with self.transaction() as connection:
            _write_runs(connection, batch)
            _write_nodes(connection, [effect.node for effect in batch if isinstance(effect, SaveNode)])
            _write_tombstones(connection, [effect for effect in batch if isinstance(effect, SaveTombstone)])

    def drop_old_secrets(self) -> None:
        """Empties the log beside the database, which keeps old rows after they were overwritten there.

        Raises:
            StoreFull: The disk is full; the log stays as it is.
        """
        connection = self._engine.raw_connection()  # a checkpoint wants no transaction around it
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            is_busy = any(row[0] for row in cursor.fetchall())
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise StoreFull(_FULL) from error
            raise
        finally:
            connection.close()
        self.has_old_secrets = bool(is_busy)

    def events(self, run_id: str) -> list[Row]:
        """The history of a run, oldest first."""
        query = select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.seq)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def has_snapshot(self, snapshot_id: str) -> bool:
        """True if the snapshot is held."""
        query = select(snapshots.c.snapshot_id).where(snapshots.c.snapshot_id == snapshot_id)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def snapshot(self, snapshot_id: str) -> bytes | None:
        """The data of a snapshot, or None if it is not held."""
        query = select(snapshots.c.data).where(snapshots.c.snapshot_id == snapshot_id)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar()

    def put_snapshot(self, snapshot_id: str, sha256: str, data: bytes) -> None:
        """Keeps a snapshot, unless it is held already.

        Raises:
            StoreFull: The disk is full.
        """
        row = {"snapshot_id": snapshot_id, "sha256": sha256, "data": data, "stored_at": time.time()}
        with self.transaction() as connection:
            held = select(snapshots.c.snapshot_id).where(snapshots.c.snapshot_id == snapshot_id)
            if connection.execute(held).first() is None:
                connection.execute(insert(snapshots), [row])

    def drop_unused_snapshots(self, older_than: float) -> None:
        """Deletes snapshots stored before `older_than` (wall clock, seconds) that no run refers to."""
        used = select(runs.c.snapshot_id)
        with self.transaction() as connection:
            connection.execute(
                delete(snapshots).where(
                    snapshots.c.stored_at < older_than, snapshots.c.snapshot_id.not_in(used)
                )
            )

    def drop_tombstones(self, older_than: float) -> None:
        """Deletes tombstones set before `older_than` (wall clock, seconds)."""
        with self.transaction() as connection:
            connection.execute(delete(tombstones).where(tombstones.c.at < older_than))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction, which is durable when the block ends, and never was if the block raises.

        Raises:
            StoreFull: The disk is full; nothing was written.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            if _is_full(error.orig):
                raise StoreFull(_FULL) from error
            raise


def _is_full(error: BaseException | None) -> bool:
    return "full" in str(error)


def _load(connection: Connection, monotonic: float) -> Account:
    return Account(
        runs=[run_of(dict(row), monotonic) for row in connection.execute(select(runs)).mappings()],
        nodes=[node_of(dict(row), monotonic) for row in connection.execute(select(nodes)).mappings()],
        tombstones={
            row.run_id: Tombstone(row.reason, row.at) for row in connection.execute(select(tombstones))
        },
    )


def _write_runs(connection: Connection, batch: list[Effect]) -> None:
    saved: dict[str, Run] = {}
    history: dict[str, list[Row]] = {}
    dropped: list[str] = []
    for effect in batch:
        match effect:
            case SaveRun(run=run):
                saved[run.run_id] = run
                history.setdefault(run.run_id, []).append(_event_row(effect))
            case DropRun(run_id=run_id):
                saved.pop(run_id, None)
                history.pop(run_id, None)
                dropped.append(run_id)
            case _:
                pass
    _delete_runs(connection, runs, [*saved, *dropped])
    _delete_runs(connection, run_events, dropped)
    if saved:
        connection.execute(insert(runs), [run_row(run) for run in saved.values()])
        connection.execute(insert(run_events), [row for rows in history.values() for row in rows])


def _delete_runs(connection: Connection, table: Table, run_ids: list[str]) -> None:
    # One by one: SQLite bounds the parameters of a statement, and any number of runs may go at once.
    if run_ids:
        statement = delete(table).where(table.c.run_id == bindparam("gone"))
        connection.execute(statement, [{"gone": run_id} for run_id in run_ids])


def _event_row(effect: SaveRun) -> Row:
    place = effect.run.place
    return {
        "run_id": effect.run.run_id,
        "attempt": effect.run.attempt,
        "phase": phase_name(effect.run.phase),
        "node": place.node if place else "",
        "message": effect.event,
        "at": time.time(),
    }


def _write_nodes(connection: Connection, changed: list[Node]) -> None:
    latest = {node.node_id: node for node in changed}
    if latest:
        connection.execute(delete(nodes).where(nodes.c.node_id.in_(latest)))
        connection.execute(insert(nodes), [node_row(node) for node in latest.values()])


def _write_tombstones(connection: Connection, buried: list[SaveTombstone]) -> None:
    latest = {effect.run_id: effect.tombstone for effect in buried}
    if latest:
        connection.execute(delete(tombstones).where(tombstones.c.run_id.in_(latest)))
        rows = [{"run_id": run_id, "reason": each.reason, "at": each.at} for run_id, each in latest.items()]
        connection.execute(insert(tombstones), rows)
