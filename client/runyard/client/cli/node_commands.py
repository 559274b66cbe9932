"""`runyard node ...`"""

from typing import Annotated

import typer

from runyard.client.cli.json_output import to_json
from runyard.client.cli.options import AddressOption, InsecureOption, Output, OutputOption, Settings
from runyard.client.cli.tables import print_node, print_nodes
from runyard.v1 import run_pb2

app = typer.Typer(help="List and show nodes.", no_args_is_help=True, rich_markup_mode=None)

LIVE_PHASES = [
    run_pb2.PHASE_ASSIGNED,
    run_pb2.PHASE_STARTING,
    run_pb2.PHASE_RUNNING,
    run_pb2.PHASE_STOPPING,
]


@app.command("list")
def list_nodes(
    context: typer.Context,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Only nodes of this cluster.")] = "",
    output: OutputOption = None,
    address: AddressOption = None,
    insecure: InsecureOption = False,
) -> None:
    """List nodes, connected or not."""
    settings = Settings.of(context, address, insecure, output)
    with settings.client() as client:
        nodes = client.list_nodes(cluster)
    if settings.output is Output.JSON:
        typer.echo(to_json(nodes))
    else:
        print_nodes(nodes)


@app.command("show")
def show_node(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Node ID.")],
    output: OutputOption = None,
    address: AddressOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Show one node: its machine, its load, and the runs that live on it."""
    settings = Settings.of(context, address, insecure, output)
    with settings.client() as client:
        found = client.get_node(node)
        if settings.output is Output.JSON:
            typer.echo(to_json(found))
        else:
            print_node(found, list(client.list_runs(node=node, phases=LIVE_PHASES)))
