"""The reporter in the processes that launch: who starts it, who shares it, and who ends it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from dagster import DagsterRunStatus
from harness.waiting import wait_until
from launcher.conftest import OpenShop
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop

from runyard.launcher.reporter.background import REPORTERS, ReporterThreads
from runyard.v1 import run_pb2

FAILURE = DagsterRunStatus.FAILURE
KILLED = run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_FAILED, signal=9)


def reporter_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("runyard-reporter")]


def test_a_launcher_that_launches_nothing_starts_nothing(new_shop: OpenShop) -> None:
    shop = new_shop({"reporter": True})
    assert shop.launcher.supports_resume_run
    assert reporter_threads() == []


def test_a_launch_starts_the_reporter_of_its_process(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({"reporter": True})
    run_id = shop.launch_and_start()
    coordinator.end(run_id, KILLED)
    wait_until(lambda: shop.status(run_id) == FAILURE, lambda: shop.status(run_id), timeout=30)
    (reporter,) = set(coordinator.reporters)
    assert reporter.endswith(f":{os.getpid()}")


def test_a_daemon_that_only_watches_reports_too(new_shop: OpenShop, coordinator: PlacingCoordinator) -> None:
    shop = new_shop({"reporter": True})
    run = shop.new_run()
    shop.launcher.check_run_worker_health(run)
    wait_until(lambda: coordinator.reporters, "a reporter follows", timeout=30)


def test_launchers_of_one_deployment_share_a_reporter_until_the_last_is_disposed(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    first, second = new_shop({"reporter": True}), new_shop({"reporter": True})
    first.launch()
    second.launch()
    assert reporter_threads() == ["runyard-reporter-default"]
    first.launcher.dispose()
    assert reporter_threads() == ["runyard-reporter-default"]
    second.launcher.dispose()
    assert reporter_threads() == []


def test_deployments_have_reporters_of_their_own(new_shop: OpenShop) -> None:
    for deployment in ("day", "night"):
        new_shop({"reporter": True, "deployment": deployment}).launch()
    assert sorted(reporter_threads()) == ["runyard-reporter-day", "runyard-reporter-night"]


def test_a_reporter_that_died_is_replaced_by_the_next_launch(
    new_shop: OpenShop, coordinator: PlacingCoordinator
) -> None:
    shop = new_shop({"reporter": True})
    shop.launch()
    (running,) = REPORTERS._running.values()
    running.reporter.stop()
    running.thread.join(5)
    assert reporter_threads() == []
    shop.launch()
    assert reporter_threads() == ["runyard-reporter-default"]


def test_a_disposed_launcher_can_be_used_again(new_shop: OpenShop, coordinator: PlacingCoordinator) -> None:
    shop = new_shop({"reporter": True})
    shop.launch()
    shop.launcher.dispose()
    run_id = shop.launch()
    assert run_id in coordinator.runs


def test_a_forked_child_starts_a_reporter_of_its_own() -> None:
    inherited = REPORTERS
    with inherited._lock:  # a fork while another thread holds the lock must not block the child
        child = os.fork()
        if child == 0:
            usable = inherited._lock.acquire(timeout=1) and not inherited._running
            os._exit(0 if usable else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_releasing_what_nobody_kept_does_nothing() -> None:
    ReporterThreads().release(object())


def test_the_reporter_does_not_keep_its_process_alive(shop: Shop, coordinator: PlacingCoordinator) -> None:
    script = """
import sys
from dagster import DagsterInstance
from dagster._core.launcher import LaunchRunContext
instance = DagsterInstance.from_config(sys.argv[1])
instance.run_launcher.launch_run(LaunchRunContext(instance.get_run_by_id(sys.argv[2]), None))
print("launched")
"""
    config = (shop.home / "dagster.yaml").read_text().replace("reporter: false", "reporter: true")
    (shop.home / "dagster.yaml").write_text(config)
    done = run_python(script, shop.home, shop.new_run().run_id)
    assert done.stdout == "launched\n"
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr


def run_python(script: str, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script, str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
