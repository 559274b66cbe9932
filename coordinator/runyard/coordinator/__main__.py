"""`python -m runyard.coordinator` and `runyard coordinator`."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs the coordinator; see `command.run`.

    Args:
        argv: Arguments after the program's name; None takes the process's own.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    # Has gRPC say which handshake failed, and with whom. Read when it is loaded, so it is loaded after this.
    os.environ.setdefault("GRPC_TRACE", "handshaker")
    if os.environ.get("GRPC_VERBOSITY", "").upper() in ("ERROR", "NONE"):  # it would not say it
        del os.environ["GRPC_VERBOSITY"]
    try:
        from runyard.coordinator.runtime.command import run
    except ModuleNotFoundError as missing:
        print(
            f"runyard coordinator: needs {missing.name}, which is not installed.\n"
            "Install it with: pip install 'runyard[coordinator]'",
            file=sys.stderr,
        )
        return 1
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
