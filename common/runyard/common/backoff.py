"""Pauses between retries. Every one has jitter, so that many processes do not retry in step."""

import random
from collections.abc import Callable
from dataclasses import dataclass

Draw = Callable[[float, float], float]
"""Draws a number between two bounds, as `random.uniform` does."""


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff: the longest possible pause doubles with every failure, up to a limit.

    Attributes:
        first: Seconds; the longest pause after the first failure.
        longest: Seconds; no pause is longer.
    """

    first: float
    longest: float

    def limit(self, failures: int) -> float:
        """Seconds; the longest pause after so many failures in a row, counted from 1."""
        return min(self.longest, self.first * 2.0 ** min(max(failures - 1, 0), 64))

    def pause(self, failures: int, draw: Draw = random.uniform) -> float:
        """Seconds to wait after so many failures in a row: any time up to the limit ("full jitter")."""
        return draw(0.0, self.limit(failures))

    def steady_pause(self, failures: int, draw: Draw = random.uniform) -> float:
        """As `pause`, but at least half of the limit: for retries that must not come too early."""
        limit = self.limit(failures)
        return draw(limit / 2, limit)


def jittered(seconds: float, spread: float = 0.1, draw: Draw = random.uniform) -> float:
    """A regular interval, longer or shorter by up to `spread` of it.

    Args:
        seconds: The interval.
        spread: From 0 to 1.
        draw: Draws the number.
    """
    return seconds * draw(1.0 - spread, 1.0 + spread)
