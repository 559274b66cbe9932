"""Connections that delay, repeat, reorder, lose and break."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from simulation.kernel import Kernel

M = TypeVar("M")


@dataclass
class Weather:
    """How bad the network is. `calm()` makes it perfect, so that the end of a history can be judged."""

    loss: float
    repeat: float
    slow: float
    breaks: float

    @classmethod
    def of(cls, kernel: Kernel) -> "Weather":
        """A network as bad as the seed wants it."""
        pick = kernel.rng.choice
        return cls(pick([0, 0.02, 0.2]), pick([0, 0.02, 0.2]), pick([0, 0.1, 0.3]), pick([0, 0.01, 0.05]))

    def calm(self) -> None:
        """Ends all faults."""
        self.loss = self.repeat = self.slow = self.breaks = 0.0


class Link(Generic[M]):
    """One direction of a connection: delivers each message never, once or twice, sooner or later.

    Delays reach beyond every lease and timeout, so that nothing is right by luck.
    """

    def __init__(self, kernel: Kernel, weather: Weather, deliver: Callable[[M], None]) -> None:
        self._kernel = kernel
        self._weather = weather
        self._deliver = deliver
        self.cut = False

    def send(self, message: M) -> None:
        """Entrusts a message to the network."""
        if self.cut:
            return
        for _ in range(2 if self._kernel.chance(self._weather.repeat) else 1):
            if not self._kernel.chance(self._weather.loss):
                longest = 40.0 if self._kernel.chance(self._weather.slow) else 0.05
                self._kernel.soon(lambda: self._arrive(message), longest)

    def _arrive(self, message: M) -> None:
        if not self.cut:
            self._deliver(message)
