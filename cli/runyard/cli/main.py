"""Entry point of the `runyard` command."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name. None: those of this process.

    Returns:
        The exit code; see `exit_codes.ExitCode`.
    """
    if argv is None and sys.argv[1:2] == ["coordinator"]:
        # A process of its own, in which gRPC logs failed handshakes: the command line makes gRPC quiet.
        os.execv(sys.executable, [sys.executable, "-m", "runyard.coordinator", *sys.argv[2:]])
    # gRPC's own notes on lost connections would stand between ours. Set before grpc is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        import rich  # noqa: F401 - both are there or the extra is not
        import typer  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as missing:
        print(
            f"runyard: the command line needs {missing.name}, which is not installed.\n"
            "Install it with: pip install 'runyard[cli]'",
            file=sys.stderr,
        )
        return 1
    from runyard.cli.app import run_command

    return run_command(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
