"""The interceptor of every call: authenticates the caller, checks its role, turns errors into a status."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from runyard.common.security.identity import Role
from runyard.coordinator.audit.audit import Audit
from runyard.coordinator.audit.events import Actor, CallDenied, Refused
from runyard.coordinator.auth.access_table import may_call
from runyard.coordinator.auth.authentication import Authenticator
from runyard.coordinator.auth.callers import Caller, NotIdentified, NotPermitted
from runyard.coordinator.auth.rates import Limit
from runyard.coordinator.auth.throttle import Throttle, network_of
from runyard.coordinator.grpc.errors import Context, StatusOfErrors

_LIMITED: Final = {"/runyard.v1.LaunchService/LaunchRun": Limit.LAUNCH}
"""Methods with a rate limit for each identity. Local callers are exempt."""

log = structlog.get_logger("runyard.coordinator.auth")

if TYPE_CHECKING:  # gRPC's types take parameters in their stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]


class Gate(grpc.aio.ServerInterceptor):
    """Admits calls by the access table. Each message of a stream, in both directions, is checked again."""

    def __init__(self, authenticator: Authenticator, throttle: Throttle, audit: Audit) -> None:
        self._authenticator = authenticator
        self._throttle = throttle
        self._audit = audit
        self._guarded: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See `grpc.aio.ServerInterceptor`. Unknown methods stay UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._guarded.get(method)
        if known is None or known[0] is not handler:
            guard = _Guard(method, self._authenticator, self._throttle, self._audit)
            known = self._guarded[method] = (handler, guard.around(handler))
        return known[1]


class _Guard:
    """Wrapper of the handler of one method."""

    def __init__(self, method: str, authenticator: Authenticator, throttle: Throttle, audit: Audit) -> None:
        self._method = method
        self._authenticator = authenticator
        self._throttle = throttle
        self._audit = audit

    def around(self, handler: Handler) -> Handler:
        """Return the wrapped handler."""
        request = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            writes = not inspect.isasyncgenfunction(inner)
            behavior = self._writing(inner) if writes else self._yielding(inner, handler.request_streaming)
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(behavior, *request)
            return grpc.unary_stream_rpc_method_handler(behavior, *request)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._reading(handler.stream_unary), *request)
        return grpc.unary_unary_rpc_method_handler(self._writing(handler.unary_unary), *request)

    def _writing(self, inner: Any) -> Any:
        """Wrap a coroutine: it takes one request, or writes its responses to the context."""

        async def guarded(request: Any, context: Context) -> Any:
            async with StatusOfErrors(context):
                self._admit(context)
                return await inner(request, context)

        return guarded

    def _reading(self, inner: Any) -> Any:
        """Wrap a handler that takes a stream and returns one response."""

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            async with StatusOfErrors(context):
                caller = self._admit(context)
                return await inner(self._checked(requests, caller), context)

        return guarded

    def _yielding(self, inner: Any, reads: bool) -> Any:
        """Wrap a handler that yields a stream, and may take one."""

        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            async with StatusOfErrors(context):
                caller = self._admit(context)
                messages = self._checked(request, caller) if reads else request
                async with contextlib.aclosing(inner(messages, context)) as responses:
                    async for response in responses:
                        self._authenticator.require_valid(caller)
                        yield response

        return guarded

    async def _checked(self, requests: AsyncIterator[Any], caller: Caller) -> AsyncIterator[Any]:
        async for request in requests:
            self._authenticator.require_valid(caller)
            yield request

    def _admit(self, context: Context) -> Caller:
        try:
            caller = self._authenticator.authenticate(context)
        except NotIdentified as refusal:
            self._deny(network_of(context.peer()), Actor("unknown", context.peer()), str(refusal))
            raise
        if not may_call(caller.role, self._method):
            refused = NotPermitted(f"{caller.identity} may not call {self._method.rpartition('/')[2]}")
            self._deny(str(caller.identity), Actor(str(caller.identity), caller.peer), str(refused))
            raise refused
        if caller.role is not Role.LOCAL and (limit := _LIMITED.get(self._method)):
            self._throttle.require(limit, caller.identity.uri)
        return caller

    def _deny(self, key: str, by: Actor, reason: str) -> None:
        """Record a refusal. Raises `TooOften` for frequent ones, which would fill the disk."""
        self._throttle.require(Limit.FAILED_AUTHENTICATION, key)
        log.warning("call_refused", method=self._method, peer=by.peer, reason=reason)
        self._audit.note(CallDenied(by=by, method=self._method, outcome=Refused(reason)))
