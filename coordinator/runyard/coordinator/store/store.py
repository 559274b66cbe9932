"""Database of a coordinator. Synchronous: the runtime calls it from one thread at a time."""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, Table, bindparam, delete, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError, OperationalError

from runyard.coordinator.core.effects import DropRun, Effect, SaveNode, SaveRun, SaveTombstone
from runyard.coordinator.core.model import Finished, Node, Run, Tombstone
from runyard.coordinator.store.engine import DATABASE, StateLock, damaged, open_sqlite
from runyard.coordinator.store.rows import Row, node_of, node_row, phase_name, run_of, run_row
from runyard.coordinator.store.schema import nodes, run_events, runs, snapshots, tombstones

_FULL = "the disk of the coordinator's state_directory is full"


class StoreFull(Exception):
    """The disk is full. Nothing was written, and the database is intact."""


@dataclass(frozen=True)
class StoreState:
    """State that a coordinator loads at its start."""

    runs: list[Run]
    nodes: list[Node]
    tombstones: dict[str, Tombstone]


class Store:
    """The database of one coordinator, held exclusively.

    Args:
        directory: The state directory; created if it does not exist.

    Attributes:
        has_old_secrets: True if the write-ahead log may still hold secrets of finished runs.

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
        """Close the database and release its lock."""
        self._engine.dispose()
        self._lock.release()

    def load(self, monotonic: float) -> StoreState:
        """Load the whole state.

        Args:
            monotonic: Monotonic time in seconds from which deadlines count.

        Raises:
            StoreError: A row is invalid. SQLite has no checksums, so its own check does not find all damage.
        """
        try:
            with self._engine.connect() as connection:
                return _load(connection, monotonic)
        except (DatabaseError, DecodeError, ValueError, KeyError, TypeError) as error:
            raise damaged(self._path, str(error)) from error

    def write(self, effects: Iterable[Effect]) -> None:
        """Write the effects of many decisions in one transaction.

        Raises:
            StoreFull: The disk is full; none of them was written.
        """
        batch = list(effects)
        if any(isinstance(effect, SaveRun) and isinstance(effect.run.phase, Finished) for effect in batch):
            self.has_old_secrets = True
        with self.transaction() as connection:
            _write_runs(connection, batch)
            _write_nodes(connection, [effect.node for effect in batch if isinstance(effect, SaveNode)])
            _write_tombstones(connection, [effect for effect in batch if isinstance(effect, SaveTombstone)])

    def drop_old_secrets(self) -> None:
        """Truncate the write-ahead log, which keeps old versions of rows.

        Raises:
            StoreFull: The disk is full; the log is unchanged.
        """
        connection = self._engine.raw_connection()  # a checkpoint must run outside a transaction
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
        """Return the history of a run, oldest event first."""
        query = select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.seq)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def has_snapshot(self, snapshot_id: str) -> bool:
        """True if the store has the snapshot."""
        query = select(snapshots.c.snapshot_id).where(snapshots.c.snapshot_id == snapshot_id)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def snapshot(self, snapshot_id: str) -> bytes | None:
        """Return the data of a snapshot, or None if the store does not have it."""
        query = select(snapshots.c.data).where(snapshots.c.snapshot_id == snapshot_id)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar()

    def put_snapshot(self, snapshot_id: str, sha256: str, data: bytes) -> None:
        """Store a snapshot, unless the store has it already.

        Raises:
            StoreFull: The disk is full.
        """
        row = {"snapshot_id": snapshot_id, "sha256": sha256, "data": data, "stored_at": time.time()}
        with self.transaction() as connection:
            connection.execute(sqlite.insert(snapshots).values(row).on_conflict_do_nothing())

    def drop_unused_snapshots(self, older_than: float) -> None:
        """Delete snapshots stored before `older_than` (seconds since 1970) that no run refers to."""
        used = select(runs.c.snapshot_id)
        with self.transaction() as connection:
            connection.execute(
                delete(snapshots).where(
                    snapshots.c.stored_at < older_than, snapshots.c.snapshot_id.not_in(used)
                )
            )

    def drop_tombstones(self, older_than: float) -> None:
        """Delete tombstones set before `older_than` (seconds since 1970)."""
        with self.transaction() as connection:
            connection.execute(delete(tombstones).where(tombstones.c.at < older_than))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Context manager of a transaction: durable when the block ends, rolled back if the block raises.

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
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _load(connection: Connection, monotonic: float) -> StoreState:
    return StoreState(
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
    _delete_runs(connection, runs, dropped)
    _delete_runs(connection, run_events, dropped)
    if saved:
        _upsert(connection, runs, [run_row(run) for run in saved.values()])
        connection.execute(insert(run_events), [row for rows in history.values() for row in rows])


def _delete_runs(connection: Connection, table: Table, run_ids: list[str]) -> None:
    # One by one: SQLite limits the parameters of a statement, but not the number of runs.
    if run_ids:
        statement = delete(table).where(table.c.run_id == bindparam("gone"))
        connection.execute(statement, [{"gone": run_id} for run_id in run_ids])


def _upsert(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert rows, or replace every column of the rows that have the same primary key."""
    statement = sqlite.insert(table)
    replaced = {column.name: column for column in statement.excluded if not column.primary_key}
    connection.execute(
        statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=replaced), rows
    )


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
        _upsert(connection, nodes, [node_row(node) for node in latest.values()])


def _write_tombstones(connection: Connection, saved: list[SaveTombstone]) -> None:
    latest = {effect.run_id: effect.tombstone for effect in saved}
    if latest:
        rows = [{"run_id": run_id, "reason": each.reason, "at": each.at} for run_id, each in latest.items()]
        _upsert(connection, tombstones, rows)
