"""A node as the tests of the Docker driver see it: real containers, and all that the driver told."""

import sys
from typing import Any

from agent.hosted_docker_driver import AGENT
from harness.dockerd import HOST, IMAGE, Dockerd
from harness.waiting import await_until

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import AttemptKey, AttemptPhase, Finished, Outcome, Running
from runyard.agent.drivers.docker.driver import DockerDriver
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.drivers.docker.plan.plan import ContainerPlan
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory


def shell(
    script: str,
    *,
    image: str = IMAGE,
    grace_seconds: float = 10.0,
    stop_after: float | None = None,
    worker_args: str = "secret",
    **kwargs: Any,
) -> SpecRecord:
    """A worker that is a shell script in a container."""
    return _spec(["/bin/sh", "-c", script], image, grace_seconds, stop_after, worker_args, kwargs)


def python(
    script: str,
    *,
    image: str = IMAGE,
    grace_seconds: float = 10.0,
    stop_after: float | None = None,
    worker_args: str = "secret",
    **kwargs: Any,
) -> SpecRecord:
    """A worker that is a Python script in a container."""
    argv = [sys.executable, "-I", "-S", "-c", script]
    return _spec(argv, image, grace_seconds, stop_after, worker_args, kwargs)


def _spec(
    argv: list[str],
    image: str,
    grace_seconds: float,
    stop_after: float | None,
    worker_args: str,
    kwargs: dict[str, Any],
) -> SpecRecord:
    plan = ContainerPlan(image, "never", kwargs={"init": True, "volumes": HOST, **kwargs})
    return SpecRecord(
        argv,
        env={"PATH": "/usr/bin:/bin"},
        grace_seconds=grace_seconds,
        stop_after=stop_after,
        worker_args=worker_args,
        driver="docker",
        container=plan.as_record(),
    )


class DockerNode:
    """A Docker driver over some run directories."""

    def __init__(self, directories: RunDirectories, engine: Dockerd, **settings: Any) -> None:
        self.directories = directories
        self.engine = engine
        self.told: list[tuple[AttemptKey, AttemptPhase]] = []
        self.driver = DockerDriver(
            DockerSettings(host=engine.address, **settings),
            directories,
            lambda key, phase: self.told.append((key, phase)),
            AGENT,
        )

    def phases(self, key: AttemptKey) -> list[AttemptPhase]:
        """What the driver told of an attempt so far."""
        return [phase for told_key, phase in self.told if told_key == key]

    async def start(self, spec: SpecRecord, key: AttemptKey) -> RunDirectory:
        """Puts an attempt on disk and has it started."""
        directory = self.directories.create(key, spec)
        await self.driver.start(key)
        return directory

    async def running(self, key: AttemptKey) -> None:
        """Returns when the driver says that the container runs."""
        await await_until(
            lambda: any(isinstance(phase, Running) for phase in self.phases(key)), lambda: self.phases(key)
        )

    async def outcome(self, key: AttemptKey, within: float = 30.0) -> Outcome:
        """The outcome, as soon as the driver tells."""
        finished = await await_until(
            lambda: [phase for phase in self.phases(key) if isinstance(phase, Finished)],
            lambda: self.phases(key),
            timeout=within,
        )
        assert len(finished) == 1
        return finished[0].outcome

    def inspect(self, key: AttemptKey) -> dict[str, Any]:
        """What the engine says of the container of an attempt."""
        with self.engine.client() as client:
            attrs: dict[str, Any] = client.api.inspect_container(container_name(key))
            return attrs
