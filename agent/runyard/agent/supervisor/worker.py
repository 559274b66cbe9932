"""The run worker's way into Dagster: `python worker.py execute_run|resume_run RUN_ID`.

Does what `python -m dagster api execute_run ARGS` does, except that ARGS, which holds the storage
configuration, comes through the file descriptor named by RUNYARD_ARGS_FD. Neither `ps` nor /proc ever shows
it, and it may be of any size. The run ID in the command is for people who look at the process list.

Runs under the code location's interpreter, by path: standard library and Dagster only, Python 3.10 and later.
A warm server has imported Dagster when its fork comes here; nothing else differs.
"""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

_ARGS_FD_NAME = "RUNYARD_ARGS_FD"
_READY_FD_NAME = "RUNYARD_READY_FD"
_DIRECTORY_NAME = "RUNYARD_RUN_DIRECTORY"
_VERBS = ("execute_run", "resume_run")


def _read_args() -> str:
    with os.fdopen(int(os.environ.pop(_ARGS_FD_NAME)), encoding="utf-8") as file:
        return file.read()


def _say_ready() -> None:
    # From here on it is up to Dagster and the user's code how long it takes. Nothing depends on this.
    room = os.environ.pop(_READY_FD_NAME, None)
    try:
        if room is not None:
            os.write(int(room), b"ready")
            os.close(int(room))
            return
        os.close(os.open(os.path.join(os.environ[_DIRECTORY_NAME], "ready"), os.O_WRONLY | os.O_CREAT, 0o600))
    except (KeyError, ValueError, OSError):
        return


def read_migrations_once() -> None:
    """Make Alembic cache the migrations of Dagster that it has read, for this process and its forks.

    Dagster asks for the newest one for each SQLite database that a run opens, and Alembic executes all of its
    90 files every time, which leaves nothing behind. A repeat changes nothing.
    """
    try:
        from alembic.script import ScriptDirectory
    except ImportError:
        return
    read: Any = ScriptDirectory.from_config.__func__  # type: ignore[attr-defined]
    if hasattr(read, "known"):
        return
    known: dict[tuple[Any, ...], Any] = {}

    def from_config(cls: Any, config: Any) -> Any:
        location = config.get_main_option("script_location") or ""
        if not location.startswith("dagster"):
            return read(cls, config)
        key = (cls, config.config_file_name, location)
        if key not in known:
            known[key] = read(cls, config)
        return known[key]

    from_config.known = known  # type: ignore[attr-defined]
    setattr(ScriptDirectory, "from_config", classmethod(from_config))  # noqa: B010


def _run_dagster(verb: str) -> None:
    # Almost nothing that an import makes is ever garbage, and looking for it takes a good part of the time.
    gc.disable()
    try:
        from dagster._cli import ENV_PREFIX, cli
    except ModuleNotFoundError as error:
        if error.name != "dagster":
            raise
        print(f"runyard: {sys.executable} has no dagster; install it there", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    read_migrations_once()
    gc.freeze()
    gc.enable()
    args = _read_args()
    _say_ready()
    # Error trackers send sys.argv home, so the arguments do not go there.
    sys.argv = ["dagster", "api", verb]
    cli(args=["api", verb, args], prog_name="dagster", auto_envvar_prefix=ENV_PREFIX)


def _look_for_modules_in_the_working_directory() -> None:
    # As `python -m` does. Given a file, Python looks beside it first, and would take the neighbours of this
    # one for the user's modules of those names. With PYTHONSAFEPATH set it does neither, and that stays so.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        sys.path[0] = os.getcwd()


def main() -> None:
    """Runs or resumes the run that the arguments describe, and exits as `dagster api` would."""
    _look_for_modules_in_the_working_directory()
    if len(sys.argv) < 2 or sys.argv[1] not in _VERBS or _ARGS_FD_NAME not in os.environ:
        print(f"runyard: started by Runyard's shim only, with {_ARGS_FD_NAME} set", file=sys.stderr)
        sys.exit(os.EX_USAGE)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # so that the log can be supervised, and survives a kill
    _run_dagster(sys.argv[1])


def _to_the_end(program: Callable[[], None]) -> NoReturn:
    """Calls the program, and ends the process as Python would; but without taking all modules apart.

    That frees what the kernel frees anyway, and takes as long as starting Python and Dagster's first imports.
    """
    status = 0
    try:
        program()
    except SystemExit as end:
        status = _status(end.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


# Guarded, since the multiprocess executor's children import this file again.
if __name__ == "__main__":
    _to_the_end(main)
