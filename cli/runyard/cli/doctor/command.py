"""`runyard doctor`: what is wrong, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from runyard.cli.doctor.findings import Level
from runyard.cli.exit_codes import ExitCode
from runyard.cli.options import AddressOption, Settings
from runyard.cli.output.tables import console


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    dagster_home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="DAGSTER_HOME",
            show_default=False,
            help="Also check the dagster.yaml in this directory.",
        ),
    ] = None,
    address: AddressOption = None,
) -> None:
    """Check the coordinator, its nodes and Dagster's settings. Ends with 1 if there is a problem."""
    from runyard.cli.doctor.coordinator_checks import examine

    out = console()
    colors = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
    worst = Level.OK
    for finding in examine(Settings.of(context, address), dagster_home):
        worst = max(worst, finding.level)
        word = finding.level.name.lower()
        out.print(f"[{colors[finding.level]}]{word:<8}[/] [bold]{finding.subject}[/]: ", end="")
        out.print(finding.text, markup=False, soft_wrap=True)
        if finding.remedy:
            out.print(f"         {finding.remedy}", markup=False, soft_wrap=True)
    raise typer.Exit(ExitCode.FAILED if worst is Level.PROBLEM else ExitCode.OK)
