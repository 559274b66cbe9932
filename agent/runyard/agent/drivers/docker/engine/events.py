"""Events of the engine, so that the end of a container is known at once. Nothing depends on them."""

import contextlib
import json
import threading
import time
from collections.abc import Callable

import structlog

from runyard.agent.drivers.docker.engine.client import Engine, EngineError
from runyard.agent.drivers.docker.plan.labels import AGENT, name_of

SILENCE = 60.0
"""Seconds without an event after which the stream is opened again: it may be that of a frozen engine."""

OOM = "oom"
"""What happened to a container of which the kernel killed a process because memory ran out."""

OVERLAP = 5
"""Seconds of the past that are read again, so that nothing falls between two streams."""

_RETRY_SECONDS = 2.0

log = structlog.get_logger("runyard.agent.docker")


class EventWatch:
    """Listens to events in its own thread.

    Args:
        engine: The engine.
        agent: The label of this agent's containers.
        on_event: Called in that thread with the name of a container and what happened to it, in the engine's
            word. None stands for any container: the stream has been opened again, and much may have happened.
    """

    def __init__(self, engine: Engine, agent: str, on_event: Callable[[str | None, str], None]) -> None:
        self._engine = engine
        self._on_event = on_event
        self._closed = threading.Event()
        filters = {"type": ["container"], "label": [f"{AGENT}={agent}"]}
        self._filters = json.dumps(filters)
        self._thread = threading.Thread(target=self._listen, name="docker-events", daemon=True)

    def open(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Report nothing more. The thread ends with the next event, at the latest with this process."""
        self._closed.set()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._one_stream()
            except EngineError as error:
                log.debug("no_events", error=str(error))
                self._closed.wait(_RETRY_SECONDS)

    def _one_stream(self) -> None:
        since = int(time.time()) - OVERLAP
        response = self._engine.stream("events", {"filters": self._filters, "since": since}, SILENCE)
        with contextlib.closing(response), self._engine.named_errors():
            self._report(None, "")
            for line in response.iter_lines():
                if line and not self._closed.is_set():
                    event = json.loads(line)
                    attributes = event.get("Actor", {}).get("Attributes", {})
                    self._report(name_of(attributes), event.get("Action") or event.get("status") or "")

    def _report(self, container: str | None, action: str) -> None:
        if not self._closed.is_set():
            with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
                self._on_event(container, action)
