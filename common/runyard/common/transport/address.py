"""Addresses of coordinators: their syntax, and which of them are local to this machine."""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from runyard.common.errors import InsecureAddress, InvalidAddress

DEFAULT_ADDRESS = "127.0.0.1:7171"


@dataclass(frozen=True)
class HostPort:
    """A TCP address. `host` is a name or an IP literal without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class UnixSocket:
    """A socket in the file system; `path` is absolute."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = HostPort | UnixSocket


def parse_address(text: str, field: str = "address") -> Address:
    """Parse an address. `str()` of the result is the form that gRPC takes, to dial and to listen.

    Args:
        text: `host:port`, `[ipv6]:port` or `unix:/path`. Port 0 is for listeners: any free port.
        field: Name of the setting that holds it, for the error.

    Raises:
        InvalidAddress: It cannot be understood; the message names the field and the remedy.
    """
    text = text.strip()
    if text.startswith("unix:"):
        return _unix_socket(text, field)
    if "://" in text or "/" in text:
        raise InvalidAddress(field, text, "is a URL or a path")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise InvalidAddress(field, text, "has no port")
    return HostPort(_host(host, text, field), _port(port, text, field))


def is_local(address: str | Address) -> bool:
    """True if only this machine can reach the address: loopback, `localhost` or a unix socket.

    Raises:
        InvalidAddress: It is text that cannot be understood.
    """
    parsed = parse_address(address) if isinstance(address, str) else address
    if isinstance(parsed, UnixSocket) or parsed.host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        return False


def require_local(address: str | Address, verb: Literal["listen on", "dial"]) -> None:
    """Refuse plain text on a connection that may leave this machine. Nothing overrides it.

    Args:
        address: What to listen on or dial without certificates.
        verb: What the caller is about to do, for the error.

    Raises:
        InsecureAddress: The address is not local.
        InvalidAddress: It is text that cannot be understood.
    """
    if not is_local(address):
        raise InsecureAddress(str(address), verb)


def _unix_socket(text: str, field: str) -> UnixSocket:
    path = text.removeprefix("unix:")
    if path.startswith("///"):  # unix:///path, the form of a URL
        path = path[2:]
    if not path.startswith("/") or path.startswith("//"):
        raise InvalidAddress(field, text, "needs an absolute path after unix:")
    # sun_path of unix(7) holds 108 bytes, with the final zero.
    if len(path.encode()) > 107:
        raise InvalidAddress(field, text, "is too long for a socket path (107 bytes at most)")
    return UnixSocket(path)


def _host(host: str, text: str, field: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise InvalidAddress(field, text, "has no IPv6 address in its brackets") from None
    if not host:
        raise InvalidAddress(field, text, "has no host")
    if ":" in host:
        raise InvalidAddress(field, text, "looks like IPv6 without brackets")
    if any(character.isspace() or character in "[]@" for character in host):
        raise InvalidAddress(field, text, "has a character that no host name has")
    return host


def _port(port: str, text: str, field: str) -> int:
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise InvalidAddress(field, text, "has no port number between 0 and 65535")
    return int(port)
