"""`runyard dev`: a coordinator and an agent in one terminal."""

from pathlib import Path
from typing import Annotated

import typer

from runyard.common.transport.address import DEFAULT_ADDRESS


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("dev")(dev)


def dev(
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where both keep their state.")] = Path(
        ".runyard"
    ),
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the coordinator listens.")
    ] = DEFAULT_ADDRESS,
    slots: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="How many runs may live at once."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the node.")] = None,
) -> None:
    """Run a coordinator and one agent in this terminal, for trying things out. Ctrl-C stops both."""
    from runyard.cli.commands.dev_processes import Development

    raise typer.Exit(Development(state, listen, slots, label or []).run())
