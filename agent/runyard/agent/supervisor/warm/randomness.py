"""Gives each fork its own random numbers where new processes would have their own.

A generator that was seeded with a value keeps it: a new interpreter that imports the same code seeds it the
same way. Python itself reseeds the functions of `random` in every fork.
"""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SEED = random.Random.seed


class Generators:
    """The random number generators that imported code created."""

    def __init__(self) -> None:
        self._unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
        self._global_state: Any = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the generators that are created or seeded in this context."""
        recorder = self
        the_global = _the_global()

        def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
            _SEED(self, a, version)
            if self is the_global:
                recorder._global_state = None if a is None else self.getstate()
            elif a is None:
                recorder._unseeded.add(self)
            else:
                recorder._unseeded.discard(self)

        seed_the_global = random.seed
        random.Random.seed = seed  # type: ignore[method-assign]
        random.seed = the_global.seed
        try:
            yield
        finally:
            random.Random.seed = _SEED  # type: ignore[method-assign]
            random.seed = seed_the_global
            if self._global_state is not None:
                self._global_state = the_global.getstate()

    def use_own_numbers(self) -> None:
        """Reseed what was not seeded with a value. Called in a fork."""
        for generator in list(self._unseeded):
            generator.seed()
        if self._global_state is not None:
            _the_global().setstate(self._global_state)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None and _numpy_seed(numpy_random) is not None:
            numpy_random.seed()


def numpy_generators() -> bool:
    """True if imported code created numpy generators; seeded and unseeded ones cannot be distinguished."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return False
    kinds = (numpy_random.Generator, numpy_random.RandomState)
    the_global = numpy_random.mtrand._rand
    return any(isinstance(each, kinds) and each is not the_global for each in gc.get_objects())


def _the_global() -> random.Random:
    generator = random._inst
    assert isinstance(generator, random.Random)
    return generator


def _numpy_seed(numpy_random: Any) -> object:
    """Seed that numpy's global generator chose itself; None once code has seeded it."""
    return getattr(numpy_random.mtrand._rand._bit_generator, "_seed_seq", None)
