"""The gRPC status of every error. This is the only place that maps one to the other."""

from types import TracebackType
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from runyard.common.secrets import masked
from runyard.common.transport.channel import RETRY_AFTER
from runyard.coordinator.auth.callers import NotIdentified, NotPermitted
from runyard.coordinator.auth.throttle import TooOften
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.ca.enrolment import JoinRefused, NodeIdTaken
from runyard.coordinator.core.errors import (
    FleetError,
    InvalidField,
    LaunchConflict,
    LaunchRefused,
    NodeIdInUse,
    NodeIsSilent,
    NodeRefused,
    NodeStillSpeaks,
    NotAllowed,
    QueueFull,
    UnknownNode,
    UnknownWarmServer,
)
from runyard.coordinator.runtime.watchers import ShuttingDown, TooSlow
from runyard.coordinator.store.store import StoreFull

log = structlog.get_logger("runyard.coordinator.grpc")


class NotFound(Exception):
    """The requested object does not exist."""


class Unavailable(Exception):
    """The call cannot be served now; the same call may succeed later."""


class NoAuthority(Exception):
    """This coordinator signs no certificates: set ca_directory, or issue them with another authority."""


class TooLarge(Exception):
    """The request exceeds a limit that the message names."""


STATUS: dict[type[Exception], grpc.StatusCode] = {
    InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooOften: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoAuthority: grpc.StatusCode.FAILED_PRECONDITION,
    AuthorityError: grpc.StatusCode.FAILED_PRECONDITION,
    JoinRefused: grpc.StatusCode.PERMISSION_DENIED,
    NodeIdTaken: grpc.StatusCode.ALREADY_EXISTS,
    LaunchConflict: grpc.StatusCode.ALREADY_EXISTS,
    NotIdentified: grpc.StatusCode.UNAUTHENTICATED,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LaunchRefused: grpc.StatusCode.FAILED_PRECONDITION,
    NodeIdInUse: grpc.StatusCode.ALREADY_EXISTS,
    NodeRefused: grpc.StatusCode.FAILED_PRECONDITION,
    UnknownNode: grpc.StatusCode.NOT_FOUND,
    UnknownWarmServer: grpc.StatusCode.NOT_FOUND,
    NodeIsSilent: grpc.StatusCode.FAILED_PRECONDITION,
    NodeStillSpeaks: grpc.StatusCode.FAILED_PRECONDITION,
    FleetError: grpc.StatusCode.FAILED_PRECONDITION,
    StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooSlow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
}

LONGEST_TEXT = 600
"""Maximum characters of an error message. Longer ones may exceed the 8 KiB of metadata that gRPC accepts, and
the client would get RESOURCE_EXHAUSTED instead."""

Context = grpc.aio.ServicerContext[Any, Any]


class StatusOfErrors:
    """Context manager that turns an exception of its block into the gRPC status of the call.

    The gate puts it around every handler; only JoinService, which has no gate, uses it itself. An exception
    that `STATUS` does not name is logged and becomes INTERNAL.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case None | grpc.aio.AbortError():
                pass
            case DecodeError():  # in a stream; gRPC itself refuses a single message
                await self._abort(grpc.StatusCode.INVALID_ARGUMENT, "a message of the stream cannot be read")
            case Exception():
                await self._refuse(error)

    async def _refuse(self, error: Exception) -> None:
        code = next((code for kind, code in STATUS.items() if isinstance(error, kind)), None)
        if code is None:
            log.error("unexpected_error", exc_info=error)
            await self._abort(grpc.StatusCode.INTERNAL, "the coordinator failed; its log has the details")
            return
        if isinstance(error, TooOften):
            self._context.set_trailing_metadata(((RETRY_AFTER, f"{error.seconds * 1e3:.0f}"),))
        await self._abort(code, masked(str(error)) or (type(error).__doc__ or "").strip())

    async def _abort(self, code: grpc.StatusCode, text: str) -> None:
        await self._context.abort(code, text[:LONGEST_TEXT])
