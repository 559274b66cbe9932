"""`runyard node ...`"""

import time
from typing import Annotated

import typer

from runyard.cli.commands.warm import app as warm_app
from runyard.cli.exit_codes import CommandFailed, UsageError
from runyard.cli.options import AddressOption, NodeArgument, Output, OutputOption, Settings
from runyard.cli.output.json_output import to_json
from runyard.cli.output.security_tables import print_certificates
from runyard.cli.output.tables import print_node, print_nodes
from runyard.cli.output.words import age
from runyard.client.client import Client
from runyard.client.errors import CoordinatorUnreachable
from runyard.common.durations import parse_duration
from runyard.common.phases import PHASES_ON_A_NODE
from runyard.v1 import fleet_pb2

app = typer.Typer(help="List, show, drain and fence nodes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(warm_app, name="warm")


@app.command("list")
def list_nodes(
    context: typer.Context,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Only nodes of this cluster.")] = "",
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """List nodes, connected or not."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        nodes = client.list_nodes(cluster)
    if settings.output is Output.JSON:
        typer.echo(to_json(nodes))
    else:
        print_nodes(nodes)


@app.command("show")
def show_node(
    context: typer.Context,
    node: NodeArgument,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Show one node: its machine, its load, and the runs that live on it."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        found = client.get_node(node)
        if settings.output is Output.JSON:
            typer.echo(to_json(found))
        else:
            print_node(found, list(client.list_runs(node=node, phases=PHASES_ON_A_NODE)))


@app.command("cordon")
def cordon_node(
    context: typer.Context,
    node: NodeArgument,
    address: AddressOption = None,
) -> None:
    """Keep new runs off a node; its present runs continue."""
    with Settings.of(context, address).client() as client:
        found = client.cordon_node(node)
    typer.echo(f"node {node} is cordoned; {_live(found)} there")


@app.command("uncordon")
def uncordon_node(
    context: typer.Context,
    node: NodeArgument,
    address: AddressOption = None,
) -> None:
    """Let a node have new runs again: end a cordon or a drain."""
    with Settings.of(context, address).client() as client:
        client.uncordon_node(node)
    typer.echo(f"node {node} takes new runs")


@app.command("drain")
def drain_node(
    context: typer.Context,
    node: NodeArgument,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop what still runs after this, as in 10m. Without it all runs are waited for.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the node is empty.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait with --wait.")] = "1d",
    address: AddressOption = None,
) -> None:
    """Keep new runs off a node and let it run empty, for maintenance."""
    seconds = None if deadline is None else _span("--deadline", deadline)
    patience = _span("--timeout", timeout)
    with Settings.of(context, address).client() as client:
        found = client.drain_node(node, deadline=seconds)
        if wait:
            found = _until_empty(client, found, patience)
    if _live_runs(found):
        typer.echo(f"node {node} is being drained; {_live(found)} there")
    else:
        typer.echo(f"node {node} is drained: no run is left there")


@app.command("fence")
def fence_node(
    context: typer.Context,
    node: NodeArgument,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="You have made sure that the node and all its workers are off.")
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Who made sure of it, and how; shown with each run.")
    ] = "",
    address: AddressOption = None,
) -> None:
    """Vouch that a silent node is off, so that its runs end and may run elsewhere."""
    with Settings.of(context, address).client() as client:
        if not confirm:
            raise UsageError(_what_fencing_means(client.get_node(node)))
        if not reason.strip():
            raise UsageError("--reason is missing: say who made sure that the node is off, and how")
        response = client.fence_node(node, reason=reason.strip())
    typer.echo(f"node {node} is fenced: {_runs(response.runs_ended)} ended as node_lost")


@app.command("revoke")
def revoke_node(
    context: typer.Context,
    node: NodeArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For those who read the log.")] = "",
    address: AddressOption = None,
) -> None:
    """Refuse every certificate of a node for good. Its runs continue; it can join again with a new token."""
    with Settings.of(context, address).client() as client:
        refused = client.security.revoke_node(node, reason=reason)
    certificates = f"{refused} certificate{'s' * (refused != 1)}"
    typer.echo(f"node {node} is refused from now on ({certificates}); it may come back with a new token")


@app.command("certificates")
def list_certificates(
    context: typer.Context,
    node: Annotated[
        str, typer.Argument(metavar="[NODE]", help="Node ID; without it, all nodes.", show_default=False)
    ] = "",
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """List the unexpired certificates that nodes were given."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        certificates = client.security.list_certificates(node)
    if settings.output is Output.JSON:
        typer.echo(to_json(certificates))
    else:
        print_certificates(certificates)


def _what_fencing_means(node: fleet_pb2.Node) -> str:
    heard = age(node.last_heard_at, time.time()) or "a time not known"
    return (
        f"node {node.node_id} was last heard of {heard} ago and has {_live(node)}. To fence it is to vouch "
        "that the machine and all its workers are off: its runs end as node_lost and may start again "
        "elsewhere. If a worker still lives, its run is then executed twice at once. Switch the machine "
        "off, then repeat the command with --confirm --reason TEXT"
    )


def _until_empty(client: Client, node: fleet_pb2.Node, timeout: float) -> fleet_pb2.Node:
    """Looks until no run lives on the node, also over a restart of the coordinator."""
    deadline = time.monotonic() + timeout
    while _live_runs(node):
        if time.monotonic() >= deadline:
            raise CommandFailed(
                f"node {node.node_id} still has {_live(node)} after {timeout:g} s; the drain stays in force"
            )
        if not node.draining:
            raise CommandFailed(f"node {node.node_id} is no longer draining: the drain was ended")
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        try:
            node = client.get_node(node.node_id)
        except CoordinatorUnreachable:
            continue
    return node


def _span(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _live(node: fleet_pb2.Node) -> str:
    return f"{_live_runs(node)} live run{'s' * (_live_runs(node) != 1)}"


def _live_runs(node: fleet_pb2.Node) -> int:
    return node.allocated.get("slots", 0)  # every run takes one


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
