"""Description of a worker as text, shown when run monitoring gives up on a run."""

from collections.abc import Sequence
from typing import Final

from runyard.common.humanize import byte_size
from runyard.common.requirement_words import in_one_line
from runyard.launcher.causes import explain_end, explain_position, outcome_name, phase_name
from runyard.v1 import launch_pb2, run_pb2

LOG_LINES: Final = 25
# Enough for as many lines of ordinary length.
LOG_BYTES: Final = 8192
_EVENTS: Final = 10


def describe(answer: launch_pb2.GetRunResponse, stderr: str) -> str:
    """Describe a run.

    Args:
        answer: The coordinator's answer about the run.
        stderr: Tail of the worker's stderr. Empty: none, or not requested.
    """
    sections = [_facts(answer.run), _events(answer.events), _log(stderr)]
    return "\n".join(section for section in sections if section)


def _facts(run: run_pb2.Run) -> str:
    return "\n".join([f"Runyard: {_headline(run)}", *(f"  {name}: {value}" for name, value in _table(run))])


def _headline(run: run_pb2.Run) -> str:
    return explain_end(run) if run.phase == run_pb2.PHASE_FINISHED else explain_position(run)


def _table(run: run_pb2.Run) -> list[tuple[str, str]]:
    facts = [
        ("phase", phase_name(run.phase)),
        ("attempt", str(run.attempt)),
        ("cluster", run.cluster),
        ("node", run.node),
        ("placed because", run.placed_because),
        ("requirements", in_one_line(run.requirements) if run.HasField("requirements") else ""),
        ("routing rule", run.rule),
        ("pid", str(run.pid or "")),
        ("stop requested", "yes" if run.stop_requested else ""),
        ("node silent", "yes" if run.unreachable else ""),
    ]
    if run.HasField("outcome"):
        peak = run.outcome.peak_rss_bytes
        facts += [
            ("outcome", outcome_name(run.outcome.kind)),
            ("peak memory", byte_size(peak) if peak else ""),
        ]
    return [(name, value) for name, value in facts if value]


def _events(events: Sequence[launch_pb2.RunEvent]) -> str:
    if not events:
        return ""
    return "\n".join(["Last events:", *(_event(event) for event in events[-_EVENTS:])])


def _event(event: launch_pb2.RunEvent) -> str:
    when = event.at.ToJsonString()
    return f"  {when} attempt {event.attempt} {phase_name(event.phase)} {event.node} {event.message}".rstrip()


def _log(stderr: str) -> str:
    lines = stderr.rstrip().splitlines()[-LOG_LINES:]
    if not lines:
        return ""
    return "\n".join([f"Last {len(lines)} lines of stderr:", *(f"  {line}" for line in lines)])
