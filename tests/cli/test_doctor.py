"""`runyard doctor` against a fake coordinator (see `fake_coordinator.py`). Dagster itself reads its YAML."""

from collections.abc import Callable
from pathlib import Path

import pytest
from client.fake_coordinator import FakeCoordinator, make_node

from runyard.cli.doctor.dagster_checks import launcher_yaml
from runyard.cli.main import main
from runyard.v1 import fleet_pb2, run_pb2

Diagnosis = tuple[int, str]


@pytest.fixture
def doctor(
    coordinator: FakeCoordinator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Diagnosis]:
    monkeypatch.setenv("RUNYARD_ADDRESS", coordinator.address)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def run(*argv: str) -> Diagnosis:
        code = main(["doctor", *argv])
        return code, capfd.readouterr().out

    return run


@pytest.fixture
def healthy(coordinator: FakeCoordinator) -> None:
    coordinator.nodes = [
        make_node("n1", slots=4, used=1),
    ]


@pytest.mark.usefixtures("healthy")
def test_when_all_is_well_every_line_is_ok(
    doctor: Callable[..., Diagnosis], coordinator: FakeCoordinator, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text(launcher_yaml(coordinator.address))
    code, out = doctor("--dagster-home", str(tmp_path))
    assert code == 0
    assert all(line.startswith("ok ") for line in out.splitlines()), out
    assert "cluster east: 1 of 1 nodes ready, 3 of 4 slots free" in out
    assert f"run launcher: runyard.launcher.RunyardRunLauncher, at {coordinator.address}" in out


def test_a_coordinator_that_is_not_there_is_a_problem_with_a_remedy(
    doctor: Callable[..., Diagnosis], coordinator: FakeCoordinator
) -> None:
    coordinator.stop()
    code, out = doctor()
    assert code == 1
    assert "problem  coordinator:" in out
    assert f"Start it with: runyard coordinator --listen {coordinator.address}" in out


@pytest.mark.parametrize(
    ("address", "words"), [("nonsense", "has no port"), ("10.0.0.1:7171", "will not dial 10.0.0.1:7171")]
)
def test_an_address_that_cannot_be_used_is_a_problem(
    doctor: Callable[..., Diagnosis], address: str, words: str
) -> None:
    code, out = doctor("--address", address)
    assert code == 1
    assert "problem  address:" in out
    assert words in out


@pytest.mark.usefixtures("healthy")
def test_a_coordinator_that_does_not_serve_is_a_problem(
    doctor: Callable[..., Diagnosis], coordinator: FakeCoordinator
) -> None:
    coordinator.health = b"\x08\x02"
    code, out = doctor()
    assert code == 1
    assert "says NOT_SERVING" in out


def test_a_fleet_without_nodes_is_a_problem(doctor: Callable[..., Diagnosis]) -> None:
    code, out = doctor()
    assert code == 1
    assert "problem  nodes: none has ever joined" in out


def test_what_may_surprise_is_a_warning(
    doctor: Callable[..., Diagnosis], coordinator: FakeCoordinator
) -> None:
    old = fleet_pb2.NodeFacts(agent_version="0.0.1")
    coordinator.nodes = [
        make_node("n1", slots=2, used=2, facts=old),
        make_node("n2", state=fleet_pb2.NODE_STATE_UNREACHABLE),
    ]
    coordinator.put_run(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_QUEUED))
    code, out = doctor()
    assert code == 0
    assert "warning  cluster east: 1 of 2 nodes ready, 0 of 2 slots free" in out
    assert "warning  node n2: is silent" in out
    assert "n1 has 0.0.1" in out
    assert "warning  queue: 1 runs wait for a node" in out


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        (None, "problem", "cannot be read"),
        ("run_launcher: [", "problem", "is not YAML"),
        ("just words", "problem", "holds no settings"),
        ("", "problem", "is the default, not Runyard's"),
        (
            "run_launcher: {module: dagster, class: DefaultRunLauncher}",
            "problem",
            "is dagster.DefaultRunLauncher",
        ),
        (
            launcher_yaml("127.0.0.1:7171") + "    colour: blue\n",
            "problem",
            'unexpected config entry "colour"',
        ),
        (launcher_yaml("nonsense"), "problem", "has no port"),
        (launcher_yaml("{env: RUNYARD_TEST_UNSET}"), "problem", "RUNYARD_TEST_UNSET"),
        (launcher_yaml("127.0.0.1:1"), "warning", "not the one that was checked here"),
    ],
    ids=[
        "missing",
        "not yaml",
        "not a mapping",
        "empty",
        "other launcher",
        "unknown key",
        "bad address",
        "unset variable",
        "other coordinator",
    ],
)
def test_dagsters_settings_are_checked(
    doctor: Callable[..., Diagnosis], tmp_path: Path, text: str | None, level: str, words: str
) -> None:
    if text is not None:
        (tmp_path / "dagster.yaml").write_text(text)
    code, out = doctor("--dagster-home", str(tmp_path))
    assert code == (1 if level == "problem" else 0)
    (line,) = [line for line in out.splitlines() if line.startswith(("problem", "warning"))]
    assert line.startswith(level)
    assert words in line


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("monitoring", "level"),
    [
        ("{enabled: true}", "warning"),
        ("{enabled: true, start_timeout_seconds: 60}", "warning"),
        ("{enabled: true, start_timeout_seconds: 3600}", "ok"),
        ("{enabled: true, start_timeout_seconds: 0}", "ok"),
        ("{enabled: false, start_timeout_seconds: 60}", "ok"),
    ],
)
def test_monitoring_that_would_fail_waiting_runs_is_a_warning(
    doctor: Callable[..., Diagnosis],
    coordinator: FakeCoordinator,
    tmp_path: Path,
    monitoring: str,
    level: str,
) -> None:
    text = f"{launcher_yaml(coordinator.address)}run_monitoring: {monitoring}\n"
    (tmp_path / "dagster.yaml").write_text(text)
    code, out = doctor("--dagster-home", str(tmp_path))
    assert code == 0
    (line,) = [line for line in out.splitlines() if "run monitoring" in line]
    assert line.startswith(level)
