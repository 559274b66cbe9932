"""`runyard coordinator`, `runyard agent`, `runyard dagster-reporter`: all arguments go to the daemon."""

import importlib
from dataclasses import dataclass

import typer

from runyard.cli.exit_codes import CommandFailed


@dataclass(frozen=True)
class Daemon:
    """A daemon in another part of Runyard."""

    command: str
    module: str
    extra: str
    help: str


DAEMONS = (
    Daemon(
        "coordinator",
        "runyard.coordinator.__main__",
        "coordinator",
        "Accept launches and route them to nodes.",
    ),
    Daemon("agent", "runyard.agent.__main__", "agent", "Run workers on this machine for a coordinator."),
    Daemon(
        "dagster-reporter",
        "runyard.launcher.reporter_main",
        "dagster",
        "Report the outcomes of workers to Dagster.",
    ),
)


def run_daemon(daemon: Daemon, argv: list[str]) -> int:
    """Run a daemon in this process until it ends.

    Raises:
        CommandFailed: A package that it needs is not installed.
    """
    try:
        module = importlib.import_module(daemon.module)
    except ModuleNotFoundError as missing:
        raise CommandFailed(
            f"`runyard {daemon.command}` needs {missing.name}, which is not installed.\n"
            f"Install it with: pip install 'runyard[{daemon.extra}]'"
        ) from missing
    code: int = module.main(argv)
    return code


def register(app: typer.Typer) -> None:
    """Add a command for each daemon."""
    for daemon in DAEMONS:
        _add(app, daemon)


def _add(app: typer.Typer, daemon: Daemon) -> None:
    # The daemon also answers --help.
    untouched = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(daemon.command, help=daemon.help, context_settings=untouched)
    def run(context: typer.Context) -> None:
        raise typer.Exit(run_daemon(daemon, context.args))
