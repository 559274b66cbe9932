"""`runyard signing-key ...`"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runyard.cli.exit_codes import CommandFailed
from runyard.cli.options import Output, OutputOption, Settings

if TYPE_CHECKING:
    from runyard.common.security.signing import PublicKey

app = typer.Typer(
    help="Make and show the keys by which nodes know genuine launches.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create")
def create_signing_key(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where its two files are put; made if need be.")
    ],
    output: OutputOption = None,
) -> None:
    """Make a key that signs launches. Nothing is overwritten."""
    _require_cryptography()
    from runyard.common.security import signing

    key = signing.create_signing_key(directory)
    place = directory.absolute()
    files = {
        "private_key_file": str(place / signing.PRIVATE_KEY),
        "public_key_file": str(place / signing.PUBLIC_KEY),
    }
    _print(context, output, key.public, files)


@app.command("show")
def show_signing_key(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A private or public key, or the directory with both.")
    ],
    output: OutputOption = None,
) -> None:
    """Show the ID and the public half of a key, for the agents' setting `signing_keys`."""
    _require_cryptography()
    from runyard.common.security import signing

    _print(context, output, signing.public_half(path), {})


def _require_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise CommandFailed(
            "keys need the package cryptography, which is not installed: pip install 'runyard[signing]'"
        )


def _print(context: typer.Context, output: Output | None, key: "PublicKey", files: dict[str, str]) -> None:
    shown = {**files, "key_id": key.key_id, "public_key": str(key)}
    if Settings.of(context, None, output=output).output is Output.JSON:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        typer.echo(f"{name.replace('_', ' '):<17} {value}")
