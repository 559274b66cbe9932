"""Turns a fork into a process like `python SCRIPT ARGUMENTS`, with everything imported already."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from types import CodeType, ModuleType
from typing import NoReturn

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import DIRECTORY_NAME, MARK_NAME
from runyard.agent.supervisor.shim import ARGS_FD_NAME
from runyard.agent.supervisor.warm import commandline
from runyard.agent.supervisor.warm.fork_safety import open_descriptors
from runyard.agent.supervisor.warm.plan import WarmPlan
from runyard.agent.supervisor.warm.randomness import Generators
from runyard.agent.supervisor.warm.steps import fork_steps


class BecomeWorker:
    """Turns forks into workers, from the state of the interpreter after the imports.

    Args:
        plan: The plan of the server.
        generators: The random number generators that the imports created.
        kept: Descriptors that forks keep, in addition to the standard streams and their own.
    """

    def __init__(self, plan: WarmPlan, generators: Generators, kept: frozenset[int]) -> None:
        self._command = [plan.python, plan.script]
        self._code = _compile(plan.script)
        self._generators = generators
        self._kept = kept
        self._set = {name: value for name, value in os.environ.items() if plan.env.get(name) != value}
        self._unset = plan.env.keys() - os.environ.keys()
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._collects = gc.isenabled()
        self._forks_steps = plan.forks_steps

    def __call__(self, spec: SpecRecord, environment: Mapping[str, str]) -> None:
        """Continue as the program of the spec; return if the plan is for another program."""
        if spec.argv[:2] != self._command:
            return
        try:
            self._become(spec, environment)
        except Exception:  # a fault of Runyard's, not of the program, which is executed instead
            traceback.print_exc()
            sys.stderr.flush()
            return
        _run(self._code, spec.argv[1])

    def _become(self, spec: SpecRecord, environment: Mapping[str, str]) -> None:
        imported = {name: value for name, value in environment.items() if name not in self._unset}
        commandline.take_environment({**imported, **self._set}, (MARK_NAME, DIRECTORY_NAME))
        self._use_own_numbers()
        tempfile.tempdir = None  # a run may have a TMPDIR of its own
        importlib.invalidate_caches()  # directories may have changed since they were looked into
        sys.argv = spec.argv[1:]
        sys.orig_argv = list(spec.argv)
        commandline.show_command(spec.argv)
        procfs.rename_process(os.path.basename(spec.argv[0]))
        self._close_what_is_not_the_workers(environment)
        if self._collects:
            gc.enable()
        if self._forks_steps:
            fork_steps(self._use_own_numbers)

    def _use_own_numbers(self) -> None:
        self._generators.use_own_numbers()
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)

    def _close_what_is_not_the_workers(self, environment: Mapping[str, str]) -> None:
        arguments = {int(environment[ARGS_FD_NAME])} if ARGS_FD_NAME in environment else set()
        for number in open_descriptors() - {0, 1, 2} - self._kept - arguments:
            os.close(number)


def _compile(script: str) -> CodeType:
    with open(script, "rb") as file:
        return compile(file.read(), script, "exec")


def _run(code: CodeType, script: str) -> NoReturn:
    """Execute the script as the interpreter does. The script must end the process itself."""
    main = ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    try:
        exec(code, main.__dict__)  # noqa: S102 - the worker's own program
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(os.EX_SOFTWARE)
