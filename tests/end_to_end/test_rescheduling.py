"""A run that its node cannot start goes to another, and Dagster sees one event more than of any other run."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest
from end_to_end.support.drivers import processes_only
from end_to_end.support.stage import FAILURE, NODE, SUCCESS, Stage, kill, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.waiting import wait_until

from runyard.v1 import run_pb2

pytestmark = processes_only

LOCATION = "proving_ground"

Settings = Mapping[str, object]
"""Of an agent, by the names of its environment variables without their prefix."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("project")
    with open_stage(folder, LAUNCH_IN_THE_CALLER, launcher={"cluster": "default"}) as stage:
        yield stage


def start_agent(stage: Stage, node: str, cluster: str, *, slots: int, settings: Settings) -> None:
    """Starts an agent of its own kind; of two free nodes the one with fewer slots is filled first."""
    variables = {f"RUNYARD_AGENT_{name}": json.dumps(value) for name, value in settings.items()}
    with mock.patch.dict(os.environ, variables):
        stage.cluster.start_agent(node, cluster, slots=slots)


def no_interpreter(folder: Path) -> tuple[Settings, str]:
    python = folder / "gone/bin/python"
    return {"INTERPRETERS": {LOCATION: str(python)}}, f"executable {python} does not exist on this node"


def no_machine_for_the_interpreter(folder: Path) -> tuple[Settings, str]:
    """Only the kernel can tell: so the run is accepted, and its worker never begins."""
    python = folder / "python"
    python.write_text("#!/no/such/interpreter\n")
    python.chmod(0o755)
    return {"INTERPRETERS": {LOCATION: str(python)}}, "the interpreter in its first line does not exist"


def old_dagster(folder: Path) -> tuple[Settings, str]:
    packages = folder / "lib/python3.12/site-packages"
    (packages / "dagster-1.8.13.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "pyvenv.cfg").write_text("version = 3.12.1\n")
    python = folder / "bin/python"
    python.symlink_to(sys.executable)
    return {"INTERPRETERS": {LOCATION: str(python)}}, f"Dagster 1.8.13 of {python} is too old"


def closed_directory(folder: Path) -> tuple[Settings, str]:
    """The project is in a folder that only its owner may enter."""
    if os.geteuid() != 0:
        pytest.skip("running workers as another user needs root; run these tests in a container as root")
    run_as = {"run_as": {"*": "nobody"}, "users": ["nobody"]}
    # On a busy machine the agent's look may take too long; then the start itself says so, in other words.
    return {"ISOLATION": run_as}, "user nobody"


FLAWS = {
    "missing interpreter": no_interpreter,
    "unusable interpreter": no_machine_for_the_interpreter,
    "old Dagster": old_dagster,
    "closed directory": closed_directory,
}
"""What a node can lack: each makes an agent's settings, and says how the reason reads."""


def runyard(stage: Stage, *arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "runyard.cli.main", "--address", stage.cluster.address]
    environment = {**os.environ, "COLUMNS": "400"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    return done.stdout


def event_types(stage: Stage, run_id: str) -> Counter[str]:
    """How many events of each kind Dagster has of a run."""
    entries = stage.site.instance.all_logs(run_id)
    # A reporter that hears of the start after the end says nothing of it.
    told = [entry for entry in entries if not entry.message.startswith("Worker started")]
    return Counter(entry.dagster_event.event_type_value for entry in told if entry.dagster_event)


def moves(stage: Stage, run_id: str) -> list[str]:
    """What Dagster shows of nodes that did not start the run."""
    entries = stage.site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return [entry.message for entry in entries if "did not start the run" in entry.message]


def succeed(stage: Stage, cluster: str) -> run_pb2.Run:
    """Runs a job to its good end."""
    run_id = stage.launch("succeed", cluster=cluster)
    stage.wait_for_status(run_id, SUCCESS)
    return stage.wait_for_phase(run_id, run_pb2.PHASE_FINISHED)


@pytest.fixture(scope="module")
def undisturbed(stage: Stage) -> Counter[str]:
    """What Dagster has of a run that its first node starts."""
    return event_types(stage, succeed(stage, "default").run_id)


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
def test_a_run_that_one_node_cannot_start_succeeds_on_the_other(
    stage: Stage,
    undisturbed: Counter[str],
    tmp_path: Path,
    flaw: Callable[[Path], tuple[Settings, str]],
) -> None:
    name = flaw.__name__.replace("_", "-")
    settings, reason = flaw(tmp_path)
    unfit, fit = f"{name}-unfit", f"{name}-fit"
    start_agent(stage, unfit, name, slots=2, settings=settings)
    start_agent(stage, fit, name, slots=8, settings={})
    run = succeed(stage, name)

    assert (run.node, run.attempt) == (fit, 1)
    assert [place.node for place in run.failed_places] == [unfit]
    assert reason in run.failed_places[0].reason
    assert len(stage.ground.starts(run.run_id)) == 1

    wait_until(lambda: moves(stage, run.run_id), lambda: stage.describe(run.run_id))
    (move,) = moves(stage, run.run_id)
    assert move.startswith(f"Node {unfit} did not start the run: ")
    assert reason in move
    assert move.endswith(f"Attempt 1 goes to node {fit}")
    more = event_types(stage, run.run_id) - undisturbed
    assert more == Counter(ENGINE_EVENT=1), stage.describe(run.run_id)
    assert undisturbed - event_types(stage, run.run_id) == Counter()

    for verb in ("show", "explain"):
        told = runyard(stage, "run", verb, run.run_id)
        assert unfit in told
        assert reason in told


def test_a_run_that_no_node_can_start_fails_once_with_the_reasons_of_all(
    stage: Stage, tmp_path: Path
) -> None:
    reasons = {}
    for slots, flaw in enumerate((no_interpreter, no_machine_for_the_interpreter), start=2):
        node = f"hopeless-{slots}"
        (folder := tmp_path / node).mkdir()
        settings, reasons[node] = flaw(folder)
        start_agent(stage, node, "hopeless", slots=slots, settings=settings)
    run_id = stage.launch("succeed", cluster="hopeless")
    stage.wait_for_status(run_id, FAILURE)

    assert stage.wait_for_end(run_id).kind == run_pb2.OUTCOME_KIND_START_FAILED
    assert stage.ground.starts(run_id) == []
    failure = stage.failure(run_id)  # there is one
    told = runyard(stage, "run", "show", run_id)
    for node, reason in reasons.items():
        assert node in failure
        assert reason in failure
        assert node in told
    types = event_types(stage, run_id)
    assert (types["PIPELINE_FAILURE"], types["PIPELINE_START"]) == (1, 0)


def test_a_worker_that_began_and_died_is_not_moved_to_another_node(stage: Stage) -> None:
    start_agent(stage, "spare", "default", slots=8, settings={})
    run_id = stage.launch_busy("wait")
    began_on = stage.wait_for_phase(run_id, run_pb2.PHASE_RUNNING)
    kill(stage.worker(run_id).pid)
    stage.wait_for_status(run_id, FAILURE)
    run = stage.wait_for_phase(run_id, run_pb2.PHASE_FINISHED)
    assert (run.node, run.attempt) == (began_on.node, began_on.attempt) == (NODE, 0)
    assert list(run.failed_places) == []
    assert moves(stage, run_id) == []
    assert len(stage.ground.starts(run_id)) == 1
