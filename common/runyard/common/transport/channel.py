"""gRPC channels to the coordinator, with the options that clients and agents share."""

from typing import Final

import grpc
import grpc.aio

from runyard.common.errors import InvalidAddress
from runyard.common.transport.address import (
    Address,
    HostPort,
    UnixSocket,
    is_local,
    parse_address,
    require_local,
)
from runyard.common.transport.tls import TlsMaterial

RETRY_AFTER: Final = "runyard-retry-after-ms"
"""Trailing metadata of a refusal that is only temporary: milliseconds until the call may succeed."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # A frozen peer still acknowledges TCP: without http2.ping_timeout_ms (60 s by default) it is noticed
    # after 70 s, with it after 25 s. The server permits pings from every 5 s on.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC by itself backs off up to 120 s, far longer than a coordinator takes to restart.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # In truth for how long a connection may take to be made, with its handshake: when a fleet comes back
    # at once, a coordinator needs seconds for all of them.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Otherwise channels to one address share a connection: big logs would delay heartbeats, and a forked
    # child would find its parent's dead connection in the pool.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

# A proxy from the environment cannot reach this machine's loopback.
_LOCAL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))

# No certificate names a path; the owner of the socket is on this machine.
_SOCKET_NAME: Final = (("grpc.ssl_target_name_override", "localhost"),)


def open_channel(address: str | Address, tls: TlsMaterial | None = None) -> grpc.Channel:
    """Open a channel, which connects when it is first used.

    Args:
        address: `host:port`, `[ipv6]:port` or `unix:/path`.
        tls: Whom to trust there, and what to show. None: plain text, which stays on this machine.

    Raises:
        InvalidAddress: The address cannot be understood or cannot be dialled.
        InsecureAddress: It is beyond this machine, and `tls` is None.
    """
    target = _dialable(address)
    if tls is not None:
        return grpc.secure_channel(str(target), tls.channel_credentials(), options=_tls_options(target))
    require_local(target, "dial")
    return grpc.insecure_channel(str(target), options=_options(target))


def open_aio_channel(address: str | Address, tls: TlsMaterial | None = None) -> grpc.aio.Channel:
    """As `open_channel`, for asyncio; call it inside the running event loop."""
    target = _dialable(address)
    if tls is not None:
        return grpc.aio.secure_channel(str(target), tls.channel_credentials(), options=_tls_options(target))
    require_local(target, "dial")
    return grpc.aio.insecure_channel(str(target), options=_options(target))


def _options(target: Address) -> tuple[tuple[str, int], ...]:
    return _LOCAL_OPTIONS if is_local(target) else CHANNEL_OPTIONS


def _tls_options(target: Address) -> tuple[tuple[str, int | str], ...]:
    return (*_options(target), *(_SOCKET_NAME if isinstance(target, UnixSocket) else ()))


def _dialable(address: str | Address) -> Address:
    target = parse_address(address) if isinstance(address, str) else address
    if isinstance(target, HostPort) and target.port == 0:
        raise InvalidAddress("address", str(target), "has port 0, which only a listener can use")
    return target
