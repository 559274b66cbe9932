"""Client library of the Runyard coordinator: needs grpcio and protobuf, nothing else.

with Client("127.0.0.1:7171") as client:
    for run in client.list_runs(phases=[run_pb2.PHASE_RUNNING]):
        print(run.run_id, run.node)
"""

from runyard.client.client import Client
from runyard.client.errors import (
    AccessDenied,
    CallCancelled,
    ClientClosed,
    CoordinatorFailed,
    CoordinatorUnreachable,
    InsecureAddress,
    InvalidAddress,
    InvalidRequest,
    InvalidTlsFiles,
    LaunchConflict,
    LaunchRefused,
    NodeNotFound,
    NotFound,
    NotSupported,
    Refused,
    ResourceExhausted,
    RunNotFound,
    RunyardError,
)
from runyard.client.health import Health
from runyard.client.reports import ReportFollower
from runyard.client.requests import LaunchDryRun, RunMatch, attempt_key
from runyard.common.transport.address import (
    DEFAULT_ADDRESS,
    HostPort,
    UnixSocket,
    is_local,
    parse_address,
    require_local,
)
from runyard.common.transport.channel import open_channel
from runyard.common.transport.tls import TlsFiles

__all__ = [
    "DEFAULT_ADDRESS",
    "AccessDenied",
    "CallCancelled",
    "Client",
    "ClientClosed",
    "CoordinatorFailed",
    "CoordinatorUnreachable",
    "Health",
    "HostPort",
    "InsecureAddress",
    "InvalidAddress",
    "InvalidRequest",
    "InvalidTlsFiles",
    "LaunchConflict",
    "LaunchDryRun",
    "LaunchRefused",
    "NodeNotFound",
    "NotFound",
    "NotSupported",
    "Refused",
    "ReportFollower",
    "ResourceExhausted",
    "RunMatch",
    "RunNotFound",
    "RunyardError",
    "TlsFiles",
    "UnixSocket",
    "attempt_key",
    "is_local",
    "open_channel",
    "parse_address",
    "require_local",
]
