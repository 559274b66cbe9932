"""The tree of commands, and what all of them share."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from runyard.cli.commands import ca as authority_commands
from runyard.cli.commands import cluster as cluster_commands
from runyard.cli.commands import daemons as daemon_commands
from runyard.cli.commands import dev as dev_command
from runyard.cli.commands import node as node_commands
from runyard.cli.commands import route as route_commands
from runyard.cli.commands import run as run_commands
from runyard.cli.commands import signing_key as signing_commands
from runyard.cli.commands import token as token_commands
from runyard.cli.doctor import command as doctor_command
from runyard.cli.exit_codes import EXIT_CODES_HELP, ExitCode, exit_code_of
from runyard.cli.options import (
    AddressOption,
    OutputOption,
    Settings,
    TlsAuthorityOption,
    TlsCertificateOption,
    TlsKeyOption,
    tls_files,
)
from runyard.client.errors import RunyardError

app = typer.Typer(
    name="runyard",
    help="Launches Dagster runs on your own machines.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(run_commands.app, name="run")
app.add_typer(node_commands.app, name="node")
app.add_typer(cluster_commands.app, name="cluster")
app.add_typer(route_commands.app, name="route")
app.add_typer(signing_commands.app, name="signing-key")
app.add_typer(token_commands.app, name="token")
app.add_typer(authority_commands.app, name="ca")
dev_command.register(app)
doctor_command.register(app)
daemon_commands.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runyard {version('runyard')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    address: AddressOption = None,
    tls_authority: TlsAuthorityOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    output: OutputOption = None,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    tls = tls_files(tls_authority, tls_certificate, tls_key)
    context.obj = Settings(tls=tls).overridden(address, output)


def run_command(argv: list[str]) -> int:
    """Runs one command and returns its exit code; errors become one or two lines on stderr."""
    try:
        app(argv, prog_name="runyard")
    except RunyardError as error:
        print(f"runyard: {error}", file=sys.stderr)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    return ExitCode.OK
