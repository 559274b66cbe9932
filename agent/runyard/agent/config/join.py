"""The `join` section: obtaining this node's certificate with a token."""

from pathlib import Path
from typing import Final

from pydantic import field_validator

from runyard.common.errors import InvalidAddress
from runyard.common.service.settings import Settings
from runyard.common.transport.address import parse_address
from runyard.common.transport.tls import TlsFiles

TLS_DIRECTORY: Final = "tls"
"""Directory of a joined node's key and certificates, in the state directory."""

CURRENT: Final = "current"
"""Symbolic link in `TLS_DIRECTORY` to the set that is in use."""

KEY: Final = "key.pem"
CERTIFICATE: Final = "certificate.pem"
AUTHORITY: Final = "authority.pem"


class JoinSettings(Settings):
    """Source of this node's first certificate. The agent renews the certificate by itself."""

    address: str
    """`host:port` where the coordinator accepts joining nodes: its setting `join_listen`."""

    token_file: Path
    """File with the output of `runyard token create`. The node joins again when the token changes."""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        try:
            return str(parse_address(value, "join.address"))
        except InvalidAddress as error:
            raise ValueError(str(error)) from error


def joined_files(state: Path) -> TlsFiles:
    """Return the paths of the TLS files of a node that joined with a token.

    Args:
        state: The agent's state directory.
    """
    current = state / TLS_DIRECTORY / CURRENT
    return TlsFiles(current / AUTHORITY, current / CERTIFICATE, current / KEY)


def has_joined(state: Path) -> bool:
    """True if the node has ever joined with a token.

    Args:
        state: The agent's state directory.
    """
    return (state / TLS_DIRECTORY / CURRENT).is_symlink()
