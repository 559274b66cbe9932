"""Options of the gRPC server, and the addresses that it listens on."""

import socket
from pathlib import Path
from typing import Final

import grpc

from runyard.common.transport.address import Address, HostPort, UnixSocket
from runyard.common.transport.channel import MAX_MESSAGE_BYTES
from runyard.coordinator.store.engine import StoreError

Options = tuple[tuple[str, int], ...]

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Largest message that a caller may send: a spec of 4 MiB (grpc/messages/requests.py), or all attempts of a
node with 10,000 slots, the maximum in its settings. Each stream of a connection may occupy as much memory, so
job snapshots are sent in pieces (grpc/snapshot_uploads.py)."""

SERVER_OPTIONS: Final[Options] = (
    # A frozen peer still acknowledges TCP: without http2.ping_timeout_ms (60 s) it is noticed after 65 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Agents ping every 15 s on silent streams; by default a server treats that as an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # After a restart all agents reconnect at once; by default only a thousand calls may wait.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Flow-control window of a stream. By default gRPC grows it with the bandwidth, to 16 MiB of memory and
    # more for each stream. This size allows 5 MB/s at a round trip of 50 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # No caller sends its own metadata; gRPC's headers have some hundred bytes. Between the two limits gRPC
    # refuses calls at random.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # A client has one stream for each waiting thread and each followed log; an agent has its session and at
    # most 32 logs.
    ("grpc.max_concurrent_streams", 200),
)

TLS_OPTIONS: Final[Options] = (
    # A silent connection is closed after ten seconds instead of two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Limits how long a connection outlives the removal of its authority. gRPC adds a jitter of 10 %. Agents
    # and clients reconnect within the grace period.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)


def listen(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None) -> str:
    """Make a server listen, and return the address with the actual port.

    Args:
        server: A server that is not started yet.
        address: Address to listen on.
        credentials: TLS credentials of the port. None: plain text.

    Raises:
        StoreError: The address is in use, or not an address of this machine.
    """
    if isinstance(address, UnixSocket):
        _remove_stale_socket(address)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise StoreError(f"cannot listen on {address}: {error}; is another coordinator running?") from error
    return str(HostPort(address.host, port)) if isinstance(address, HostPort) else str(address)


def _remove_stale_socket(address: UnixSocket) -> None:
    """Delete the socket of a coordinator that was killed, and nothing else."""
    path = Path(address.path)
    if not path.exists():
        return
    if not path.is_socket():
        raise StoreError(f"cannot listen on {address}: the file there is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot listen on {address}: {error.strerror or error}") from error
        else:
            raise StoreError(f"cannot listen on {address}: it is in use; is another coordinator running?")
