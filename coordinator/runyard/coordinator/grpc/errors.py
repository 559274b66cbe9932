"""The one place where a refusal becomes a gRPC status."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from runyard.common.secrets import masked
from runyard.common.transport.channel import RETRY_AFTER
from runyard.coordinator.auth.callers import NotIdentified, NotPermitted
from runyard.coordinator.auth.throttle import TooOften
from runyard.coordinator.ca.authority_directory import AuthorityError
from runyard.coordinator.ca.enrolment import JoinRefused, NodeIsTaken
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
    """What was asked for is not there."""


class Unavailable(Exception):
    """It cannot be had now; the same call may succeed later."""


class NoAuthority(Exception):
    """This coordinator signs no certificates: set ca_directory, or make them with another authority."""


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
    NodeIsTaken: grpc.StatusCode.ALREADY_EXISTS,
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
"""Characters of a refusal. Longer ones may exceed the 8 KiB of metadata that gRPC takes for granted, and the
client would be told RESOURCE_EXHAUSTED instead."""

Context = grpc.aio.ServicerContext[Any, Any]


@contextlib.asynccontextmanager
async def answering(context: Context) -> AsyncIterator[None]:
    """Turns what the block raises into a status; the unexpected is logged, and told as INTERNAL."""
    try:
        yield
    except tuple(STATUS) as refusal:
        code = next(code for kind, code in STATUS.items() if isinstance(refusal, kind))
        text = masked(str(refusal)) or (type(refusal).__doc__ or "").strip()
        if isinstance(refusal, TooOften):
            context.set_trailing_metadata(((RETRY_AFTER, f"{refusal.seconds * 1e3:.0f}"),))
        await context.abort(code, text[:LONGEST_TEXT])
    except DecodeError:  # of a stream; gRPC itself refuses a single message
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message of the stream cannot be read")
    except (grpc.aio.AbortError, GeneratorExit):
        raise
    except Exception:
        log.exception("unexpected_error")
        await context.abort(grpc.StatusCode.INTERNAL, "the coordinator failed; its log says how")
