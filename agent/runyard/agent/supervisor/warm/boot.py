"""Entry point of a warm server: `python boot.py REQUESTS HINTS HOME ROOM`, by the environment's interpreter.

Runyard's modules are loaded from the folder of this file and then removed from `sys.modules`, so that workers
import the versions of their own environment. `server` describes the arguments.
"""

import os
import sys
from types import ModuleType

_AGENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _package(name: str, *places: str) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = list(places)
    return package


def _load_server() -> ModuleType:
    ours = {"runyard": _package("runyard"), "runyard.agent": _package("runyard.agent", _AGENT)}
    sys.modules.update(ours)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        from runyard.agent.supervisor.warm import server
    finally:
        sys.dont_write_bytecode = writes_bytecode
        for name in [name for name in sys.modules if name.partition(".")[0] == "runyard"]:
            del sys.modules[name]
    return server


def _look_for_modules_in_the_working_directory() -> None:
    # As the worker's script does; with PYTHONSAFEPATH set Python does neither, and that stays so.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
        sys.path[0] = os.getcwd()


if __name__ == "__main__":
    _look_for_modules_in_the_working_directory()
    _load_server().main()
