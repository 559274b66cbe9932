"""Images are had by the pull policy, with the owner's credentials; and who says no is told apart."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from agent.docker_registries import AWAY, CLOSED, OPEN, serving
from agent.docker_side import DockerNode, shell
from harness.dockerd import Dockerd
from harness.waiting import await_until

from runyard.agent.config.docker import PullPolicy
from runyard.agent.core.model import AttemptKey, Finished, OutcomeKind, Starting
from runyard.agent.drivers.docker import supervise
from runyard.agent.drivers.docker.engine import images
from runyard.agent.drivers.docker.engine.progress import Progress
from runyard.agent.drivers.docker.plan.plan import ContainerPlan
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

KEY = AttemptKey("run-a", 1)


@pytest.fixture
def registries(dockerd: Dockerd) -> Iterator[None]:
    """The registries, from which the engine has pulled nothing."""
    with serving(dockerd):
        yield


@pytest.fixture
async def puller(directories: RunDirectories, dockerd: Dockerd) -> AsyncIterator[DockerNode]:
    """A node that has credentials."""
    credentials = {CLOSED: {"username": "puller", "password": "hunter2"}}
    made = DockerNode(directories, dockerd, registries=credentials)
    await made.driver.open()
    yield made
    await made.driver.close()
    dockerd.remove_containers()


def wanting(image: str, pull: PullPolicy = "if-not-present") -> SpecRecord:
    """A worker from that image, which holds no program: so it is never more than nearly started."""
    plan = ContainerPlan(image, pull, kwargs={"init": True})
    return SpecRecord(["/etl"], {}, driver="docker", container=plan.as_record())


async def test_an_image_that_is_missing_is_pulled_and_people_are_told(
    docker_node: DockerNode, registries: None
) -> None:
    directory = await docker_node.start(wanting(f"{OPEN}/etl:1"), KEY)
    await docker_node.outcome(KEY)
    assert f"runyard: pulling image {OPEN}/etl:1" in directory.stderr.read_text()
    assert f"runyard: pulled image {OPEN}/etl:1 in " in directory.stderr.read_text()
    assert Starting() in docker_node.phases(KEY)
    assert progress_told(docker_node) == [], "a short pull is nobody's business"
    assert docker_node.inspect(KEY)["Config"]["Image"] == f"{OPEN}/etl:1"


async def test_an_image_that_is_there_is_not_pulled_unless_always(
    docker_node: DockerNode, registries: None
) -> None:
    policies: list[PullPolicy] = ["always", "if-not-present", "always"]
    told = []
    for number, policy in enumerate(policies):
        key = AttemptKey("run-a", number)
        directory = await docker_node.start(wanting(f"{OPEN}/etl:1", policy), key)
        await docker_node.outcome(key)
        told.append("pulled" in directory.stderr.read_text())
    assert told == [True, False, True]


async def test_credentials_of_the_owner_open_a_registry(puller: DockerNode, registries: None) -> None:
    directory = await puller.start(wanting(f"{CLOSED}/etl:1"), KEY)
    await puller.outcome(KEY)
    assert "pulled" in directory.stderr.read_text()


async def test_a_registry_that_says_no_is_told_from_one_that_does_not_know_the_image(
    docker_node: DockerNode, registries: None
) -> None:
    denied, unknown = AttemptKey("run-a", 1), AttemptKey("run-b", 1)
    await docker_node.start(wanting(f"{CLOSED}/etl:1"), denied)
    await docker_node.start(wanting(f"{OPEN}/etl:2"), unknown)
    outcomes = [await docker_node.outcome(key) for key in (denied, unknown)]
    assert all(outcome.kind is OutcomeKind.START_FAILED for outcome in outcomes)
    assert outcomes[0].message.startswith("pull denied: ")
    assert f"{CLOSED!r} in docker.registries" in outcomes[0].message
    assert outcomes[1].message.startswith("image not found: ")


async def test_an_image_that_is_never_pulled_is_told_by_the_policy(docker_node: DockerNode) -> None:
    await docker_node.start(shell("exit 0", image="no/such:1"), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "image not found: no/such:1" in outcome.message
    assert "docker.pull is never" in outcome.message


async def test_a_registry_that_is_away_is_tried_again_and_then_given_up(
    docker_node: DockerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "START_PATIENCE", 1.0)
    await docker_node.start(wanting(f"{AWAY}/etl:1"), KEY)
    outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.START_FAILED
    assert f"cannot pull {AWAY}/etl:1" in outcome.message


def progress_told(node: DockerNode) -> list[str]:
    """What was told of the start, in order."""
    return [phase.progress for phase in node.phases(KEY) if isinstance(phase, Starting) and phase.progress]


async def test_progress_is_told_now_and_then_while_a_pull_goes_on(
    docker_node: DockerNode, registries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "REPORT_AFTER", 0.8)
    monkeypatch.setattr(images, "REPORT_EVERY", 0.8)
    directory = await docker_node.start(wanting(f"{OPEN}/slow:1"), KEY)
    await docker_node.outcome(KEY)
    *underway, last = progress_told(docker_node)
    amounts = [
        float(match[1]) for line in underway if (match := re.search(r": ([\d.]+) of 4\.0 MiB, 0 of 1", line))
    ]
    assert 2 <= len(amounts) <= len(underway) <= 4, underway
    assert amounts == sorted(amounts)
    assert 0 < amounts[-1] <= 4
    assert last.startswith(f"pulled image {OPEN}/slow:1 in ")
    assert all(f"runyard: {line}\n" in directory.stderr.read_text() for line in (*underway, last))


def test_layers_that_are_not_begun_make_the_size_a_least_one() -> None:
    progress = Progress("etl:1")
    assert str(progress) == "pulling image etl:1: the registry has sent nothing yet"
    mib = 1 << 20
    for line in (
        {"status": "Pulling from etl", "id": "1"},
        {"status": "Pulling fs layer", "id": "a", "progressDetail": {}},
        {"status": "Already exists", "id": "b", "progressDetail": {}},
        {"status": "Waiting", "id": "c", "progressDetail": {}},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 120 * mib, "total": 400 * mib}},
    ):
        progress.take(line)
    assert str(progress) == "pulling image etl:1: 120 of at least 400 MiB, 1 of 3 layers unpacked"
    progress.take({"status": "Download complete", "id": "a"})
    progress.take({"status": "Downloading", "id": "c", "progressDetail": {"current": mib, "total": 4 * mib}})
    progress.take({"status": "Pull complete", "id": "a"})
    assert str(progress) == "pulling image etl:1: 401 of 404 MiB, 2 of 3 layers unpacked"


async def test_a_stop_ends_the_wait_for_a_pull(
    docker_node: DockerNode, registries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "REPORT_AFTER", 0.5)
    await docker_node.start(wanting(f"{OPEN}/crawl:1"), KEY)
    await await_until(lambda: progress_told(docker_node), "no progress")
    assert not isinstance(docker_node.phases(KEY)[-1], Finished)
    await docker_node.driver.stop(KEY, 60.0, "by alice")
    async with asyncio.timeout(2.0):
        outcome = await docker_node.outcome(KEY)
    assert outcome.kind is OutcomeKind.STOPPED


async def test_news_of_a_pull_stay_before_what_the_worker_writes(docker_node: DockerNode) -> None:
    directory = docker_node.directories.create(KEY, shell("echo mine >&2; sleep 600"))
    directory.stderr.write_text("runyard: pulled\n")
    await docker_node.driver.start(KEY)
    await await_until(lambda: "mine" in directory.stderr.read_text(), "no output")
    assert directory.stderr.read_text() == "runyard: pulled\nmine\n"
