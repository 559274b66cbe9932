"""Keeps the forks of one process from drawing the same random numbers, where new processes would not.

What was seeded with a value stays as it is: a new interpreter that imports the same code seeds it likewise.
Python itself seeds the functions of `random` anew in every fork.
"""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SEED = random.Random.seed


class Generators:
    """The random number generators that were made while code was imported."""

    def __init__(self) -> None:
        self._unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
        self._global_state: Any = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Notes those that are made or seeded while this lasts."""
        noted = self
        the_global = _the_global()

        def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
            _SEED(self, a, version)
            if self is the_global:
                noted._global_state = None if a is None else self.getstate()
            elif a is None:
                noted._unseeded.add(self)
            else:
                noted._unseeded.discard(self)

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

    def part_from_siblings(self) -> None:
        """In a fork: from now on its numbers are its own."""
        for generator in list(self._unseeded):
            generator.seed()
        if self._global_state is not None:
            _the_global().setstate(self._global_state)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None and _numpy_seed(numpy_random) is not None:
            numpy_random.seed()


def numpy_generators() -> bool:
    """Whether imported code made generators of numpy's own kind; they cannot be told from seeded ones."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return False
    import gc

    kinds = (numpy_random.Generator, numpy_random.RandomState)
    the_global = numpy_random.mtrand._rand
    return any(isinstance(each, kinds) and each is not the_global for each in gc.get_objects())


def _the_global() -> random.Random:
    generator = random._inst
    assert isinstance(generator, random.Random)
    return generator


def _numpy_seed(numpy_random: Any) -> object:
    """What numpy's own generator was seeded with by itself; None once somebody gave it a seed."""
    return getattr(numpy_random.mtrand._rand._bit_generator, "_seed_seq", None)
