"""Options that commands share. They may stand before the command or after it; the latter wins."""

import enum
from dataclasses import dataclass, replace
from typing import Annotated, Self

import typer

from runyard.client.address import DEFAULT_ADDRESS
from runyard.client.client import Client


class Output(enum.StrEnum):
    """How lists and details are printed."""

    TABLE = "table"
    JSON = "json"


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RUNYARD_ADDRESS",
        metavar="ADDRESS",
        show_default=False,
        help=f"The coordinator: host:port, [ipv6]:port or unix:/path. Default: {DEFAULT_ADDRESS}.",
    ),
]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Node ID.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Allow a plain-text connection to another machine.")
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output", "-o", show_default=False, help="A table for people (default), or JSON for scripts."
    ),
]


@dataclass(frozen=True)
class Settings:
    """What the shared options amount to."""

    address: str = DEFAULT_ADDRESS
    insecure: bool = False
    output: Output = Output.TABLE

    @classmethod
    def of(
        cls,
        context: typer.Context,
        address: str | None,
        insecure: bool = False,
        output: Output | None = None,
    ) -> Self:
        """The settings of a command: its own options, else those before it, else the defaults."""
        before = context.obj if isinstance(context.obj, cls) else cls()
        return before.overridden(address, insecure, output)

    def overridden(self, address: str | None, insecure: bool, output: Output | None) -> Self:
        """These settings, with the options that were given."""
        return replace(
            self,
            address=address or self.address,
            insecure=insecure or self.insecure,
            output=output or self.output,
        )

    def client(self) -> Client:
        """A client of the coordinator; close it after use."""
        return Client(self.address, insecure=self.insecure)
