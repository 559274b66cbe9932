"""`runyard cluster ...`"""

import typer

from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.cli.output.json_output import to_json
from runyard.cli.output.tables import print_clusters

app = typer.Typer(help="List clusters.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def cluster() -> None:
    """Keep `list` a subcommand although it is the only one."""


@app.command("list")
def list_clusters(
    context: typer.Context,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """List clusters, each with the sum over its nodes."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        clusters = client.list_clusters()
    if settings.output is Output.JSON:
        typer.echo(to_json(clusters))
    else:
        print_clusters(clusters)
