"""The first program in a container: claims the attempt, and turns into the worker.

It stands in the container beside the worker's program and its arguments, which hold the storage
configuration. The process that removes the arguments runs the worker, and only one can: a container that
is started once more ends here. Standard library only, any Python 3.
"""

import os
import sys

NOT_MINE = 75
"""Exit code of a container that had been started before: EX_TEMPFAIL of sysexits.h."""


def main() -> None:
    """Run the worker in place of this program, with its arguments behind a descriptor."""
    here = os.path.dirname(os.path.abspath(__file__))
    arguments = os.path.join(here, "args")
    try:
        descriptor = os.open(arguments, os.O_RDONLY)
        os.unlink(arguments)
    except FileNotFoundError:
        print("runyard: this attempt has been started before, and is not started twice", file=sys.stderr)
        sys.exit(NOT_MINE)
    os.set_inheritable(descriptor, True)
    os.environ["RUNYARD_ARGS_FD"] = str(descriptor)
    os.execv(sys.executable, [sys.executable, os.path.join(here, "worker.py"), *sys.argv[1:]])


if __name__ == "__main__":
    main()
