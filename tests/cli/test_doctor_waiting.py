"""Whom `runyard doctor` expects to end a run that waits too long for a node."""

from typing import Any

import pytest

from runyard.cli.doctor.findings import Level
from runyard.cli.doctor.waiting_checks import examine_waiting

ON: dict[str, Any] = {"enabled": True}


@pytest.mark.parametrize(
    ("monitoring", "words"),
    [
        (None, "off"),
        ({"enabled": False, "start_timeout_seconds": 60}, "off"),
        ({**ON, "start_timeout_seconds": 0}, "as long as they must"),
        ({**ON, "start_timeout_seconds": 3600}, "longer than 3600 s"),
    ],
)
def test_monitoring_that_lets_runs_wait_is_well(monitoring: object, words: str) -> None:
    finding = examine_waiting(monitoring, {})
    assert finding.level is Level.OK
    assert words in finding.text


@pytest.mark.parametrize(
    ("monitoring", "seconds"), [(ON, 180), ({**ON, "start_timeout_seconds": 60}, 60)], ids=["default", "set"]
)
def test_a_start_timeout_that_would_fail_waiting_runs_is_a_warning(
    monitoring: dict[str, Any], seconds: int
) -> None:
    finding = examine_waiting(monitoring, {"address": "127.0.0.1:7171"})
    assert finding.level is Level.WARNING
    assert f"waits for a node longer than {seconds} s (start_timeout_seconds)" in finding.text
    assert finding.remedy.startswith(f"Set run_launcher.config.max_queue_seconds below {seconds}")


@pytest.mark.parametrize(
    ("monitoring", "launcher", "words"),
    [
        (ON, {"max_queue_seconds": 120}, "after 120 s, before Dagster does (180 s)"),
        (ON, {"max_queue_seconds": "90.5"}, "after 90.5 s, before Dagster does (180 s)"),
        (ON, {"max_queue_seconds": {"env": "LONGEST_WAIT"}}, "after 100 s, before Dagster does"),
        ({**ON, "start_timeout_seconds": 660}, {"max_queue_seconds": 600}, "after 600 s, before Dagster"),
        (ON, {"max_queue_seconds": 150, "start_timeout_seconds": 30}, "after 150 s, before Dagster"),
    ],
)
def test_a_wait_that_runyard_ends_before_dagster_does_is_well(
    monkeypatch: pytest.MonkeyPatch, monitoring: dict[str, Any], launcher: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("LONGEST_WAIT", "100")
    finding = examine_waiting(monitoring, launcher)
    assert finding.level is Level.OK
    assert words in finding.text


@pytest.mark.parametrize(
    ("launcher", "remedy"),
    [
        ({"max_queue_seconds": 121}, "start_timeout_seconds to 181 or more, or max_queue_seconds to 120 or"),
        ({"max_queue_seconds": 600}, "start_timeout_seconds to 660 or more, or max_queue_seconds to 120 or"),
        (
            {"max_queue_seconds": 120, "start_timeout_seconds": 90},
            "start_timeout_seconds to 210 or more, or max_queue_seconds to 90 or less",
        ),
        ({"max_queue_seconds": 10, "start_timeout_seconds": 300}, "start_timeout_seconds to 310 or more"),
    ],
)
def test_a_wait_that_dagster_may_end_first_is_a_warning_with_numbers_to_set(
    launcher: dict[str, Any], remedy: str
) -> None:
    finding = examine_waiting(ON, launcher)
    assert finding.level is Level.WARNING
    assert f"for {launcher['max_queue_seconds']} s (max_queue_seconds)" in finding.text
    assert finding.remedy.startswith(f"Set {remedy}")


@pytest.mark.parametrize("value", [{"env": "RUNYARD_TEST_UNSET"}, "soon", ["1"]])
def test_a_wait_that_cannot_be_read_counts_as_none(value: object) -> None:
    assert examine_waiting(ON, {"max_queue_seconds": value}) == examine_waiting(ON, {})
