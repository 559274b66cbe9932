"""When a failed call is repeated: pure, the time is an argument."""

import random
from collections.abc import Callable, Iterable

import grpc

from runyard.client.errors import CoordinatorUnreachable, RunyardError, from_rpc_error
from runyard.common.transport.channel import RETRY_AFTER

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

_LOST_ANSWER = "Internal error from Core"
"""So gRPC's asyncio client says where it was sending a stream when the call was refused: it forgets why."""


class RepeatedCall:
    """An idempotent call that is repeated while the coordinator is unavailable, inside one deadline.

    A coordinator that is called too often says when it may be asked again, and is asked then.

    The pauses are drawn evenly from a window that doubles ("full jitter"), so that clients that lost the same
    coordinator do not come back all at once.
    """

    def __init__(
        self,
        method: str,
        address: str,
        timeout: float,
        now: float,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Starts the clock.

        Args:
            method: Name of the RPC.
            address: The coordinator's address.
            timeout: Seconds for all tries together.
            now: Monotonic time in seconds.
            draw: Picks a number between two bounds.
        """
        self._method = method
        self._address = address
        self._deadline = now + timeout
        self._draw = draw
        self._window = FIRST_PAUSE_SECONDS
        self._unavailable: CoordinatorUnreachable | None = None

    def remaining(self, now: float) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self._deadline - now)

    def pause_after(self, error: grpc.RpcError, now: float) -> float:
        """Tells for how many seconds to wait before the next try.

        Raises:
            RunyardError: The call is not to be repeated, because of its status or because time is up.
        """
        failure = from_rpc_error(error, self._address, self._method)
        told = _told_to_wait(error)
        if told is not None and told < self.remaining(now):
            return min(told + self._draw(0.0, self._window), self.remaining(now))
        may_repeat = error.code() == grpc.StatusCode.UNAVAILABLE or error.details() == _LOST_ANSWER
        if not isinstance(failure, CoordinatorUnreachable) and not may_repeat:
            raise failure from error
        if isinstance(failure, CoordinatorUnreachable) and may_repeat:
            self._unavailable = failure
        pause = self._draw(0.0, self._window)
        if not may_repeat or pause >= self.remaining(now):
            raise self._telling_failure(failure) from error
        self._window = min(2 * self._window, LONGEST_PAUSE_SECONDS)
        return pause

    def _telling_failure(self, last: RunyardError) -> RunyardError:
        """An earlier "connection refused" says more than the "deadline exceeded" of a last, short try."""
        return self._unavailable or last


def _told_to_wait(error: grpc.RpcError) -> float | None:
    """Seconds after which the coordinator wants to be asked again; None if it does not say."""
    trailing: Iterable[tuple[str, str | bytes]] = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in trailing:
        if key == RETRY_AFTER:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            return int(text) / 1e3 if text.isdecimal() else None
    return None
