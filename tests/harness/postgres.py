"""A PostgreSQL server of one's own, on a Unix socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "runyard"


class NoPostgres(Exception):
    """PostgreSQL is not installed, or does not start; the message names the remedy."""


@contextmanager
def temporary_postgres() -> Iterator[str]:
    """Runs a server with its usual guarantees (fsync on) for the length of the block.

    Yields:
        The URL of its database, as SQLAlchemy takes it.

    Raises:
        NoPostgres: It is not installed, or does not start.
    """
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        raise NoPostgres("initdb and pg_ctl are not in PATH; install PostgreSQL's server")
    folder = Path(tempfile.mkdtemp(prefix="runyard-pg-"))
    # It refuses to run as root, so that whoever breaks into it does not own the machine.
    as_user = ["setpriv", "--reuid", "nobody", "--clear-groups"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "nobody")
    data, log = str(folder / "data"), str(folder / "log")
    options = f"-k {folder} -c listen_addresses='' -c max_connections=200"
    try:
        _run([*as_user, "initdb", "-D", data, "-U", USER, "-A", "trust"], folder)
        _run([*as_user, "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start"], folder)
        try:
            yield f"postgresql+psycopg2://{USER}@/postgres?host={folder}"
        finally:
            _run([*as_user, "pg_ctl", "-D", data, "-m", "immediate", "stop"], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NoPostgres(f"{' '.join(command)}: {done.stderr or done.stdout}")
