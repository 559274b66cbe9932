"""The reporter as a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from harness.waiting import wait_until
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop

from runyard.launcher import reporter_main
from runyard.v1 import run_pb2

FAILURE = DagsterRunStatus.FAILURE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_reports_until_it_is_told_to_stop(
    shop: Shop, coordinator: PlacingCoordinator, number: signal.Signals
) -> None:
    run_id = shop.launch_and_start()
    coordinator.end(run_id, run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=9))
    command = [
        sys.executable,
        "-m",
        "runyard.launcher.reporter_main",
        "--dagster-home",
        str(shop.home),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: shop.status(run_id) == FAILURE, lambda: shop.status(run_id))
            process.send_signal(number)
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, log
    assert f"Reporting for deployment default of the coordinator at {coordinator.address}" in log
    assert f"Reported run {run_id} to Dagster: The run worker was killed by SIGKILL" in log


def test_it_needs_a_dagster_instance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert reporter_main.main([]) == 2
    assert "give --dagster-home DIR or set DAGSTER_HOME" in capsys.readouterr().err


def test_it_does_not_take_an_empty_directory_for_an_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reporter_main.main(["--dagster-home", str(tmp_path)]) == 2
    assert "there is no dagster.yaml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_needs_an_instance_that_launches_with_runyard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert reporter_main.main(["--dagster-home", str(tmp_path)]) == 2
    assert "is DefaultRunLauncher; set run_launcher to runyard.launcher" in capsys.readouterr().err


def test_it_names_a_setting_that_makes_no_sense(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    config = (
        (shop.home / "dagster.yaml").read_text().replace(shop.launcher.settings.address, "http://cluster")
    )
    (shop.home / "dagster.yaml").write_text(config)
    assert reporter_main.main(["--dagster-home", str(shop.home)]) == 2
    assert "write host:port" in capsys.readouterr().err
