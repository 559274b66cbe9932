"""The audit log: its content, and that it delays no caller."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from coordinator.store.small_disk import mounted
from harness.waiting import wait_until

from runyard.common.secrets import remember
from runyard.coordinator.audit.audit import audited
from runyard.coordinator.audit.audit_file import LONGEST_TEXT, AuditFile
from runyard.coordinator.audit.events import (
    Actor,
    CallDenied,
    Event,
    LaunchRequested,
    NodeCordoned,
    Refused,
    TerminationRequested,
)

ME = Actor("spiffe://runyard/client/me", "ipv4:10.0.0.1:4242")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@contextmanager
def noting(path: Path, waiting: int = 1_000) -> Iterator[AuditFile]:
    with closing(AuditFile(path, waiting)) as audit:
        yield audit


class Heard:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)


def test_a_line_has_author_action_object_and_outcome(path: Path) -> None:
    with noting(path) as audit:
        audit.note(LaunchRequested(by=ME, run="run-1", resume_number=2, deployment="shop", job="etl"))
        audit.note(CallDenied(by=ME, method="/x/Y", outcome=Refused("not your role")))
    first, second = lines(path)
    assert list(first) == [
        "at",
        "who",
        "peer",
        "action",
        "run",
        "resume_number",
        "deployment",
        "job",
        "outcome",
    ]
    assert first["at"].endswith("+00:00")
    assert (first["who"], first["peer"], first["action"], first["outcome"]) == (
        ME.who,
        ME.peer,
        "run.launch",
        "done",
    )
    assert (second["method"], second["outcome"], second["reason"]) == ("/x/Y", "refused", "not your role")


def test_the_file_is_for_its_user_alone_and_only_grows(path: Path) -> None:
    for number in range(3):
        with noting(path) as audit:
            audit.note(NodeCordoned(by=ME, node=f"node-{number}"))
    assert [line["node"] for line in lines(path)] == ["node-0", "node-1", "node-2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_texts_of_callers_break_no_line_and_are_bounded(path: Path) -> None:
    with noting(path) as audit:
        audit.note(TerminationRequested(by=ME, run='x\n{"who":"admin"}', message="y" * 100_000))
    (line,) = lines(path)
    assert line["who"] == ME.who
    assert len(line["why"]) == LONGEST_TEXT


def test_secrets_are_masked(path: Path) -> None:
    remember(["canary-in-audit"])
    with noting(path) as audit:
        audit.note(TerminationRequested(by=ME, run="r", message="because canary-in-audit"))
    assert "canary-in-audit" not in path.read_text()


def test_a_file_that_was_moved_away_is_created_again(path: Path) -> None:
    with noting(path) as audit:
        audit.note(NodeCordoned(by=ME, node="before"))
        wait_until(lambda: path.exists() and path.stat().st_size > 0, "the first line is not there")
        moved = path.rename(path.with_suffix(".1"))
        audit.note(NodeCordoned(by=ME, node="after"))
    assert [line["node"] for line in lines(moved)] == ["before"]
    assert [line["node"] for line in lines(path)] == ["after"]


def test_a_full_disk_delays_no_caller_and_dropped_events_are_counted(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        filler = disk / "filler"
        with noting(disk / "audit.jsonl", waiting=5) as audit:
            filler.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
            for number in range(50):
                audit.note(NodeCordoned(by=ME, node=f"node-{number}"))
            filler.unlink()
            wait_until(
                lambda: any(line["action"] == "audit.lost" for line in lines(disk / "audit.jsonl")),
                "no count",
            )
            written = lines(disk / "audit.jsonl")
    kept = [line for line in written if line["action"] == "node.cordon"]
    lost = [line["count"] for line in written if line["action"] == "audit.lost"]
    assert kept[0]["node"] == "node-0"
    assert len(kept) + sum(lost) == 50


def test_a_file_that_cannot_be_opened_is_noticed_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        AuditFile(tmp_path)


def test_the_exception_of_a_block_is_the_reason_of_the_refusal() -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="no such node"), audited(heard, NodeCordoned(by=ME, node="a")):
        raise ValueError("no such node")
    assert [event.outcome for event in heard.events] == [Refused("no such node")]


def test_a_withdrawn_event_is_not_recorded() -> None:
    heard = Heard()
    with audited(heard, NodeCordoned(by=ME, node="a")) as entry:
        entry.withdraw()
    assert heard.events == []
