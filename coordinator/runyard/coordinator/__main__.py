"""`python -m runyard.coordinator` and `runyard coordinator`."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the coordinator; see `command.run`.

    Args:
        argv: Arguments after the program's name; None: those of the process.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    try:
        from runyard.coordinator.command import run
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
