"""Errors between a client and the coordinator.

    RunyardError
    ├── InvalidAddress                also a ValueError
    ├── InsecureAddress               a plain-text connection beyond this machine
    ├── InvalidTlsFiles               also a ValueError: certificates or keys that cannot be used
    ├── ClientClosed                  a call after close()
    ├── CoordinatorUnreachable        UNAVAILABLE, DEADLINE_EXCEEDED: the call may be repeated
    ├── InvalidRequest                INVALID_ARGUMENT, OUT_OF_RANGE
    ├── NotFound                      NOT_FOUND
    │   ├── RunNotFound
    │   └── NodeNotFound
    ├── LaunchConflict                ALREADY_EXISTS
    ├── Refused                       FAILED_PRECONDITION, ABORTED
    │   └── LaunchRefused
    ├── ResourceExhausted             RESOURCE_EXHAUSTED
    ├── AccessDenied                  UNAUTHENTICATED, PERMISSION_DENIED
    ├── NotSupported                  UNIMPLEMENTED
    ├── CallCancelled                 CANCELLED
    └── CoordinatorFailed             everything else: a defect, or the coordinator's storage

`from_rpc_error` is the one place where a gRPC status becomes one of these.
"""

import grpc

from runyard.common.errors import InsecureAddress, InvalidAddress, InvalidTlsFiles, RunyardError
from runyard.common.transport.handshake_errors import DOCTOR, handshake_error

__all__ = [
    "AccessDenied",
    "CallCancelled",
    "ClientClosed",
    "CoordinatorFailed",
    "CoordinatorUnreachable",
    "InsecureAddress",
    "InvalidAddress",
    "InvalidRequest",
    "InvalidTlsFiles",
    "LaunchConflict",
    "LaunchRefused",
    "NodeNotFound",
    "NotFound",
    "NotSupported",
    "Refused",
    "ResourceExhausted",
    "RunNotFound",
    "RunyardError",
    "from_rpc_error",
]


class ClientClosed(RunyardError):
    """The client was closed; make a new one."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class CoordinatorUnreachable(RunyardError):
    """No usable answer came in time. Nothing is known about the call's effect; it may be repeated."""

    def __init__(self, address: str, details: str) -> None:
        self.address = address
        self.details = details
        super().__init__(_unreachable_message(address, details))


class _Answered(RunyardError):
    """The coordinator answered with an error."""

    def __init__(self, details: str) -> None:
        self.details = details
        super().__init__(details or type(self).__doc__)


class InvalidRequest(_Answered):
    """A field of the request is wrong."""


class NotFound(_Answered):
    """The coordinator does not know it."""


class RunNotFound(NotFound):
    """The coordinator does not know this run. `runyard run list` shows those that it knows."""


class NodeNotFound(NotFound):
    """The coordinator does not know this node. `runyard node list` shows those that it knows."""


class LaunchConflict(_Answered):
    """The run was launched before with another content."""


class Refused(_Answered):
    """The coordinator will not do this in the present state."""


class LaunchRefused(Refused):
    """The coordinator will not launch this run in the present state."""


class ResourceExhausted(_Answered):
    """A limit of the coordinator was reached."""


class AccessDenied(_Answered):
    """This client may not do that."""


class NotSupported(_Answered):
    """The coordinator is too old for this call; upgrade it before its clients."""


class CallCancelled(_Answered):
    """The call was cancelled by this side."""


class CoordinatorFailed(_Answered):
    """The coordinator failed; its log says why."""


_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

_BY_CODE: dict[grpc.StatusCode, type[_Answered]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: LaunchConflict,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ABORTED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
    grpc.StatusCode.CANCELLED: CallCancelled,
}

_BY_METHOD: dict[tuple[str, grpc.StatusCode], type[_Answered]] = {
    ("LaunchRun", grpc.StatusCode.FAILED_PRECONDITION): LaunchRefused,
    ("LaunchRun", grpc.StatusCode.ABORTED): LaunchRefused,
    ("ExplainLaunch", grpc.StatusCode.FAILED_PRECONDITION): LaunchRefused,
    ("GetRun", grpc.StatusCode.NOT_FOUND): RunNotFound,
    ("ExplainRun", grpc.StatusCode.NOT_FOUND): RunNotFound,
    ("TerminateRun", grpc.StatusCode.NOT_FOUND): RunNotFound,
    ("ReadLogs", grpc.StatusCode.NOT_FOUND): RunNotFound,
    ("GetNode", grpc.StatusCode.NOT_FOUND): NodeNotFound,
    ("CordonNode", grpc.StatusCode.NOT_FOUND): NodeNotFound,
    ("UncordonNode", grpc.StatusCode.NOT_FOUND): NodeNotFound,
    ("DrainNode", grpc.StatusCode.NOT_FOUND): NodeNotFound,
    ("FenceNode", grpc.StatusCode.NOT_FOUND): NodeNotFound,
}


def from_rpc_error(error: grpc.RpcError, address: str, method: str) -> RunyardError:
    """Turns the status of a failed call into the exception that says what it means.

    Args:
        error: As raised by a call of grpc or grpc.aio.
        address: The coordinator's address, for the message.
        method: Name of the RPC, for example `LaunchRun`.
    """
    code = error.code()
    details = error.details() or ""
    if code in _UNREACHABLE:
        return CoordinatorUnreachable(address, details)
    kind = _BY_METHOD.get((method, code)) or _BY_CODE.get(code)
    if kind is None:
        return CoordinatorFailed(f"the coordinator at {address} failed in {method}: {details or code.name}")
    return kind(details)


# How gRPC itself begins the details of an UNAVAILABLE; whatever else is UNAVAILABLE, the coordinator wrote.
_TRANSPORT_FAILURES = (
    "failed to connect",
    "connections to all backends failing",
    "errors resolving",
    "dns resolution failed",
    "socket closed",
    "connection reset",
    "recvmsg:",
    "sendmsg:",
    "tcp handshaker",
    "goaway",
    "keepalive watchdog timeout",
    "ping timeout",
    "stream removed",
    "deadline exceeded",
    "endpoint closing",
    "end of tcp stream",
    "broken pipe",
)


def _unreachable_message(address: str, details: str) -> str:
    if not details.lower().startswith(_TRANSPORT_FAILURES):
        return f"the coordinator at {address} cannot answer now: {details or 'unavailable'}"
    if error := handshake_error(details):
        return f"no secure connection to the coordinator at {address}: {error.message}. {DOCTOR}"
    cause = details.rsplit(": ", 1)[-1].rstrip("]").lower()
    return (
        f"the coordinator at {address} cannot be reached: {cause}. Check that it runs there, and the address"
    )
