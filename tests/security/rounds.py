"""How long is fuzzed, and from where.

`make test` draws the same inputs each time, for as long as it takes to notice that something broke;
`make fuzz` draws others each time, or with `SEED` the same, for as long as it is told.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")

SECONDS: Final = float(os.environ.get("RUNYARD_FUZZ_SECONDS", "0"))
"""For each target; 0 in ordinary tests, which know how long they need."""

SEED: Final = int(os.environ.get("RUNYARD_FUZZ_SEED") or random.SystemRandom().getrandbits(30))
"""Where fuzzing begins, where it is told how long."""

EXAMPLES: Final = 25
"""Between two looks at the clock."""


def fuzz(
    values: st.SearchStrategy[T], attack: Callable[[T], None], ordinary: float, share: float = 1.0
) -> int:
    """Calls `attack` with one drawn value after the other until the time is over.

    Args:
        values: What to draw.
        attack: Raises if it finds something; Hypothesis then looks for the smallest value that does it.
        ordinary: Seconds in ordinary tests.
        share: Of `SECONDS`, for what is one target together with others.

    Returns:
        How many values were drawn.
    """
    drawn = 0

    def counted(value: T) -> None:
        nonlocal drawn
        drawn += 1
        attack(value)

    ends = time.monotonic() + (SECONDS * share or ordinary)
    first = SEED if SECONDS else 0
    for number in range(first, first + 1_000_000):
        seed(number)(_round(values, counted))()
        if time.monotonic() >= ends:
            break
    return drawn


def _round(values: st.SearchStrategy[T], attack: Callable[[T], None]) -> Callable[[], None]:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    patiently = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=checks,
    )
    return patiently(given(values)(attack))
