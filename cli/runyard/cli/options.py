"""Options that commands share. They may stand before the command or after it; the latter wins.

Those for certificates stand before it, or in the environment: they go with the user, not with the command.
"""

import enum
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import typer

from runyard.client.client import Client
from runyard.client.errors import InvalidTlsFiles
from runyard.common.transport.address import DEFAULT_ADDRESS
from runyard.common.transport.tls import TlsFiles


class Output(enum.StrEnum):
    """Format of lists and details."""

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
TlsAuthorityOption = Annotated[
    Path | None,
    typer.Option(
        envvar="RUNYARD_TLS_AUTHORITY",
        metavar="FILE",
        show_default=False,
        help="Certificates of the authorities to trust, in PEM. Needed beyond this machine.",
    ),
]
TlsCertificateOption = Annotated[
    Path | None,
    typer.Option(
        envvar="RUNYARD_TLS_CERTIFICATE", metavar="FILE", show_default=False, help="Your certificate."
    ),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option(
        envvar="RUNYARD_TLS_KEY",
        metavar="FILE",
        show_default=False,
        help="The key of that certificate; readable by its owner only.",
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output", "-o", show_default=False, help="A table for people (default), or JSON for scripts."
    ),
]


@dataclass(frozen=True)
class Settings:
    """Values of the shared options."""

    address: str = DEFAULT_ADDRESS
    tls: TlsFiles | None = None
    output: Output = Output.TABLE

    @classmethod
    def of(
        cls,
        context: typer.Context,
        address: str | None,
        output: Output | None = None,
    ) -> Self:
        """The settings of a command: its own options, else those before it, else the defaults."""
        before = context.obj if isinstance(context.obj, cls) else cls()
        return before.overridden(address, output)

    def overridden(self, address: str | None, output: Output | None) -> Self:
        """These settings, with the options that were given."""
        return replace(
            self,
            address=address or self.address,
            output=output or self.output,
        )

    def client(self) -> Client:
        """A client of the coordinator; close it after use."""
        return Client(self.address, tls=self.tls)


def tls_files(authority: Path | None, certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """TLS files from the three options. None: plain text.

    Raises:
        InvalidTlsFiles: Some of them are missing.
    """
    if authority is None:
        if certificate is not None or key is not None:
            raise InvalidTlsFiles(
                "--tls-authority is missing; it names the certificates of the authority to trust"
            )
        return None
    return TlsFiles(authority, certificate, key)
