"""`runyard node warm ...`"""

import json
from typing import Annotated

import typer

from runyard.cli.options import AddressOption, NodeArgument, Output, OutputOption, Settings
from runyard.cli.output.json_output import as_dict
from runyard.cli.output.tables import print_warm_servers

app = typer.Typer(
    help="List and replace the warm servers of nodes, from which runs are forked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_warm_servers(
    context: typer.Context,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Node ID; without it, all nodes.")
    ] = None,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """List warm servers, as their nodes last reported them."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        nodes = client.list_nodes() if node is None else [client.get_node(node)]
    if settings.output is Output.JSON:
        servers = [
            {"node": each.node_id, **as_dict(server)} for each in nodes for server in each.warm_servers
        ]
        typer.echo(json.dumps(servers, indent=2))
    else:
        print_warm_servers(nodes)


@app.command("refresh")
def refresh_warm_servers(
    context: typer.Context,
    node: NodeArgument,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Of one server; without it, all that are not resting.")
    ] = "",
    address: AddressOption = None,
) -> None:
    """Replace warm servers. Runs start cold meanwhile; runs that were forked before continue."""
    with Settings.of(context, address).client() as client:
        asked = client.refresh_warm_servers(node, name)
    servers = f"{asked} warm server{'s' * (asked != 1)}" if asked else "warm servers, but has none"
    typer.echo(f"node {node} was asked to replace {servers}")
