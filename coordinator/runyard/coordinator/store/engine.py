"""Opening of the database: locked for one coordinator, checked, and migrated to the newest schema."""

import fcntl
import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError

from runyard.common.service.private_directory import NotPrivate, make_private

DATABASE = "coordinator.db"
"""File name in the state directory."""

_MIGRATIONS = Path(__file__).with_name("migrations")


class StoreError(Exception):
    """The state directory or its database cannot be used; the message has the reason and a remedy."""


class StateLock:
    """Lock of the state directory for one coordinator. The kernel releases it when the process ends."""

    def __init__(self, directory: Path) -> None:
        try:
            make_private(directory, "state_directory")
            self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except NotPrivate as error:
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(
                f"state_directory {directory} cannot be written ({error.strerror}); "
                "make it writable for this user or choose another"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StoreError(
                f"state_directory {directory} is in use by another coordinator; stop that one first, "
                "or give this one another state_directory"
            ) from None

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def open_sqlite(path: Path) -> Engine:
    """Open, check and migrate a database.

    Raises:
        StoreError: The file is damaged, of a newer version, or cannot be opened or written.
    """
    _keep_private(path)
    # Without hide_parameters, an error would quote the row, and with it the secrets of a launch.
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5.0}, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        _check(engine, path)
        _migrate(engine, path)
    except OperationalError as error:
        raise StoreError(
            f"{path} cannot be opened ({error.orig}); is the disk full, or does another program hold it?"
        ) from error
    return engine


def _keep_private(path: Path) -> None:
    """Let only this user read the file and the files that SQLite creates beside it: launches hold secrets."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}); make it writable for this user"
        ) from error


def _prepare(connection: Any, _: object) -> None:
    # By default the driver begins no transaction before DDL, and a crash would leave half a migration.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: an assignment lost in a power cut would lead to a second worker.
    # secure_delete, and no temporary files: no secret of a finished run stays on disk.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _check(engine: Engine, path: Path) -> None:
    try:
        with engine.connect() as connection:
            result = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    except DatabaseError as error:
        if isinstance(error, OperationalError):
            raise
        result = str(error.orig)
    if result != "ok":
        raise damaged(path, str(result))


def damaged(path: Path, how: str) -> StoreError:
    """Return the error for a damaged database."""
    return StoreError(f"{path} is damaged ({how}); restore it from a backup, or move it away to start empty")


def _migrate(engine: Engine, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            newest = ScriptDirectory.from_config(config).get_current_head()
            raise StoreError(
                f"{path} was written by a newer Runyard (this one knows schema {newest}: {error}); "
                "upgrade this coordinator"
            ) from error
