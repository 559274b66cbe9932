"""How late a run may be."""

from runyard.coordinator.core.model import Assigned, Queued, Run, Starting


def deadline(run: Run) -> float | None:
    """The monotonic time from which on the run is late in its present phase; None: it never is."""
    if run.stop is not None:
        return None
    limits = run.launch.time_limits
    match run.phase:
        case Queued() if limits.max_queue_time is not None:
            return run.queued_since + limits.max_queue_time
        case Assigned() | Starting() if limits.start_timeout is not None:
            return run.since + limits.start_timeout
        case _:
            return None


def lateness(run: Run, news: str) -> str:
    """What to say of a run that is past its deadline.

    Args:
        run: The run.
        news: Its situation in one sentence.
    """
    limits = run.launch.time_limits
    if isinstance(run.phase, Queued):
        limit = f"{limits.max_queue_time:g} s (max_queue_time)"
        return f"no node could take the run within {limit}; it was {news}"
    return f"the worker did not start within {limits.start_timeout:g} s (start_timeout)"
