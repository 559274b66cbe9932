"""The gate that every call goes through: who calls, and whether that role may. Shut unless both are known."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from runyard.common.security.identity import Role
from runyard.coordinator.audit.audit import Actor, Audit, CallDenied, Refused
from runyard.coordinator.auth.access_table import may_call
from runyard.coordinator.auth.admission import Admission
from runyard.coordinator.auth.callers import Caller, NotIdentified, NotPermitted
from runyard.coordinator.auth.rates import Limit
from runyard.coordinator.auth.throttle import Throttle, network_of
from runyard.coordinator.grpc.errors import Context, StatusOfErrors

_LIMITED: Final = {"/runyard.v1.LaunchService/LaunchRun": Limit.LAUNCH}
"""Calls that each identity may make only so often. Whoever is on this machine could exhaust it anyway."""

log = structlog.get_logger("runyard.coordinator.auth")

if TYPE_CHECKING:  # gRPC's types take parameters in their stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls in by the table. Of a long call every message is looked at again, in both directions."""

    def __init__(self, admission: Admission, throttle: Throttle, audit: Audit) -> None:
        self._admission = admission
        self._throttle = throttle
        self._audit = audit
        self._guarded: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See `grpc.aio.ServerInterceptor`. What is served nowhere stays UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._guarded.get(method)
        if known is None or known[0] is not handler:
            guard = _Guard(method, self._admission, self._throttle, self._audit)
            known = self._guarded[method] = (handler, guard.around(handler))
        return known[1]


class _Guard:
    """Stands before one method."""

    def __init__(self, method: str, admission: Admission, throttle: Throttle, audit: Audit) -> None:
        self._method = method
        self._admission = admission
        self._throttle = throttle
        self._audit = audit

    def around(self, handler: Handler) -> Handler:
        """The handler behind the guard."""
        request = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            writes = not inspect.isasyncgenfunction(inner)
            behavior = self._writing(inner) if writes else self._yielding(inner, handler.request_streaming)
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(behavior, *request)
            return grpc.unary_stream_rpc_method_handler(behavior, *request)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._hearing(handler.stream_unary), *request)
        return grpc.unary_unary_rpc_method_handler(self._writing(handler.unary_unary), *request)

    def _writing(self, inner: Any) -> Any:
        """Before a handler that is a coroutine: of one request, or one that writes its answers by itself."""

        async def guarded(request: Any, context: Context) -> Any:
            async with StatusOfErrors(context):
                self._admit(context)
                return await inner(request, context)

        return guarded

    def _hearing(self, inner: Any) -> Any:
        """Before a handler that takes a stream and gives one answer."""

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            async with StatusOfErrors(context):
                caller = self._admit(context)
                return await inner(self._heard(requests, caller), context)

        return guarded

    def _yielding(self, inner: Any, hears: bool) -> Any:
        """Before a handler that gives a stream, and may take one."""

        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            async with StatusOfErrors(context):
                caller = self._admit(context)
                heard = self._heard(request, caller) if hears else request
                async with contextlib.aclosing(inner(heard, context)) as responses:
                    async for response in responses:
                        self._admission.require(caller)
                        yield response

        return guarded

    async def _heard(self, requests: AsyncIterator[Any], caller: Caller) -> AsyncIterator[Any]:
        async for request in requests:
            self._admission.require(caller)
            yield request

    def _admit(self, context: Context) -> Caller:
        try:
            caller = self._admission.admit(context)
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
        """Notes a refusal; those who are refused too often are noted no more: they must not fill the disk."""
        self._throttle.require(Limit.FAILED_AUTHENTICATION, key)
        log.warning("call_refused", method=self._method, peer=by.peer, reason=reason)
        self._audit.note(CallDenied(by=by, method=self._method, outcome=Refused(reason)))
