"""`runyard token ...`"""

from typing import Annotated

import typer

from runyard.cli.exit_codes import UsageError
from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.cli.output.json_output import to_json
from runyard.cli.output.security_tables import print_tokens
from runyard.common.durations import parse_duration

app = typer.Typer(help="Make tokens with which nodes join.", no_args_is_help=True, rich_markup_mode=None)


@app.command("create")
def create_token(
    context: typer.Context,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="The cluster that nodes join with it.")],
    node: Annotated[
        str, typer.Option(metavar="ID", help="The only node that may use it; without it, any new one.")
    ] = "",
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it can be used, 24h at most.")] = "15m",
    uses: Annotated[int, typer.Option(min=1, metavar="N", help="How many nodes may join with it.")] = 1,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Print a token with which a node joins. It is shown only this once, and is a secret until it is used."""
    settings = Settings.of(context, address, output)
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None
    with settings.client() as client:
        made = client.security.create_token(cluster, node_id=node, ttl=seconds, uses=uses)
    if settings.output is Output.JSON:
        typer.echo(to_json(made))
    else:
        typer.echo(made.text)
        typer.echo("Put this line into the file that the agent's setting join.token_file names.", err=True)


@app.command("list")
def list_tokens(context: typer.Context, output: OutputOption = None, address: AddressOption = None) -> None:
    """List tokens, without their secrets."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        tokens = client.security.list_tokens()
    if settings.output is Output.JSON:
        typer.echo(to_json(tokens))
    else:
        print_tokens(tokens)


@app.command("delete")
def delete_token(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `runyard token list` shows it.")],
    address: AddressOption = None,
) -> None:
    """Make a token worthless. Nodes that have joined with it stay."""
    with Settings.of(context, address).client() as client:
        client.security.delete_token(token_id)
    typer.echo(f"token {token_id} is deleted")
