"""Exit codes that scripts may rely on, and the errors that lead to them."""

import enum

from runyard.client.errors import (
    CoordinatorUnreachable,
    InsecureAddress,
    InvalidAddress,
    InvalidTlsFiles,
    NotFound,
    RunyardError,
)


class ExitCode(enum.IntEnum):
    """Exit code of a command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 what was asked for failed; 2 the command was not understood; "
    "3 the coordinator cannot be reached; 4 the run, node or log is not known."
)


class CommandFailed(RunyardError):
    """The command could not do what was requested."""


class UsageError(RunyardError):
    """The command line cannot be understood."""


def exit_code_of(error: RunyardError) -> ExitCode:
    """The exit code for a command that ended with this error."""
    match error:
        case UsageError() | InvalidAddress() | InsecureAddress() | InvalidTlsFiles():
            return ExitCode.USAGE
        case CoordinatorUnreachable():
            return ExitCode.UNREACHABLE
        case NotFound():
            return ExitCode.NOT_FOUND
        case _:
            return ExitCode.FAILED
