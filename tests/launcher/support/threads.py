"""Threads that end with the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Runs `work` beside the test, and waits for its end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive(), "the thread did not end"
