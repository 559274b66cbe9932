"""Starts the processes of Dagster's steps as forks of their run's worker, where that is safe.

The multiprocess executor starts a new interpreter for each step, which imports everything again. A fork has
it imported already. It then does what the new interpreter would do: it reads its instructions from the same
pipe and unpickles them. If the worker has threads, open connections or modules that cannot be forked, and for
every other use of multiprocessing, a new interpreter is started as usual.
"""

from __future__ import annotations

import atexit
import gc
import os
import stat
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from runyard.agent.supervisor.warm import commandline
from runyard.agent.supervisor.warm.fork_safety import UNFORKABLE, open_descriptors, threads

_STEPS = "dagster._core.executor.child_process_executor"


def fork_steps(restore: Callable[[], None]) -> None:
    """Fork the processes of steps from now on. Called in a worker before its program starts.

    Args:
        restore: Called in each fork, to restore signal handlers and to separate its random numbers.
    """
    from multiprocessing import popen_spawn_posix
    from multiprocessing import util as util_module

    popen: Any = popen_spawn_posix.Popen
    util: Any = util_module
    launch, execute = popen._launch, util.spawnv_passfds

    def fork(path: Any, arguments: list[Any], descriptors: list[int]) -> int:
        return _fork([os.fsdecode(argument) for argument in arguments], set(descriptors), restore)

    def launch_step(self: Any, process: Any) -> None:
        is_step = getattr(getattr(process, "_target", None), "__module__", "") == _STEPS
        if is_step and _is_safe():
            # The tracker of resources must be there, as it is started by the same function.
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()
            util.spawnv_passfds = fork
        try:
            launch(self, process)
        finally:
            util.spawnv_passfds = execute

    popen._launch = launch_step


def _is_safe() -> bool:
    if threads() is not None or any(name in sys.modules for name in UNFORKABLE):
        return False
    return not any(_is_connection(number) for number in open_descriptors())


def _is_connection(descriptor: int) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode) or target.startswith("/dev/nvidia")
    except OSError:
        return False


def _fork(command: list[str], descriptors: set[int], restore: Callable[[], None]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become_step(command, descriptors, restore)
    return pid


def _become_step(command: list[str], descriptors: set[int], restore: Callable[[], None]) -> NoReturn:
    """Run in the fork like `python COMMAND`, to the end of the process."""
    status = 1
    try:
        gc.freeze()  # the worker's objects are never collected here, so none of their files are closed
        for number in open_descriptors() - {0, 1, 2} - descriptors:
            os.close(number)
        restore()
        program, *arguments = command[command.index("-c") + 1 :]
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = ModuleType("__main__")
        sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]
        commandline.show_command(command)
        status = _execute(program)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(status)


def _execute(program: str) -> int:
    """Execute the program after `-c` in the command, which calls `spawn_main`."""
    try:
        exec(program, {"__name__": "__main__"})  # noqa: S102 - the program of multiprocessing
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
