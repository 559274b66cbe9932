"""The container of one attempt, as calls of the engine that may be repeated after any crash."""

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.engine.client import Engine, NameTaken, NotThere
from runyard.agent.drivers.docker.exit_records import ContainerState
from runyard.agent.drivers.docker.plan.gpus import device_requests, seen_inside
from runyard.agent.drivers.docker.plan.labels import RUN, container_name, labels_of
from runyard.agent.drivers.docker.plan.payload import archive
from runyard.agent.drivers.docker.plan.plan import TOOLS, ContainerPlan
from runyard.agent.node.gpus import devices_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import MARK_NAME


class Foreign(Exception):
    """A container of that name exists, and Runyard did not make it."""


class Container:
    """The container that an attempt has, or may get.

    Args:
        engine: Where it is.
        key: The attempt.
        agent: ID of the agent's installation.
    """

    def __init__(self, engine: Engine, key: AttemptKey, agent: str) -> None:
        self.name = container_name(key)
        self._engine = engine
        self._key = key
        self._agent = agent

    async def state(self) -> ContainerState | None:
        """State as the engine reports it; None if there is no such container.

        Raises:
            Foreign: It was not made by Runyard.
            EngineError: The engine does not answer.
        """
        try:
            attrs = await self._engine.call(lambda client: client.api.inspect_container(self.name))
        except NotThere:
            return None
        if (attrs["Config"].get("Labels") or {}).get(RUN) != self._key.run_id:
            raise Foreign(f"the engine has a container {self.name} that Runyard did not make; remove it")
        return ContainerState.of(attrs)

    async def make(self, plan: ContainerPlan, spec: SpecRecord) -> None:
        """Make the container, ready to start, in place of one that was made and never started.

        Raises:
            EngineError: The engine cannot, or does not answer.
        """
        await self.remove()
        kwargs = dict(plan.kwargs)
        kwargs["labels"] = {**kwargs.get("labels", {}), **labels_of(self._key, self._agent)}
        if kwargs.get("read_only"):
            kwargs["volumes"] = [*kwargs.get("volumes", []), TOOLS]  # one of its own, removed with it
        devices = devices_of(spec)
        if devices:
            kwargs["device_requests"] = device_requests(len(devices), devices)
        environment = {**seen_inside(spec.env, devices), MARK_NAME: f"{self._key.run_id}/{self._key.attempt}"}
        await self._engine.call(
            lambda client: client.containers.create(
                plan.image,
                spec.argv,
                name=self.name,
                environment=environment,
                network=plan.networks[0] if plan.networks else None,
                **kwargs,
            )
        )
        for network in plan.networks[1:]:
            await self._engine.call(
                lambda client, network=network: client.networks.get(network).connect(self.name)  # type: ignore[misc]
            )
        where, folder = (TOOLS, "") if kwargs.get("read_only") else ("/", TOOLS.lstrip("/"))
        files = archive(spec.worker_args, folder)
        await self._engine.call(lambda client: client.api.put_archive(self.name, where, files))

    async def start(self) -> None:
        """Start it; a running container continues.

        Raises:
            EngineError: The engine cannot, or does not answer.
        """
        await self._engine.call(lambda client: client.api.start(self.name))

    async def signal(self, name: str) -> None:
        """Send a signal to its first process, which hears it also if the container is paused.

        Raises:
            EngineError: The engine does not answer. That the container is over is no error.
        """
        try:
            await self._engine.call(lambda client: client.api.kill(self.name, name))
        except (NotThere, NameTaken):
            return

    async def unpause(self) -> None:
        """Resume a paused container.

        Raises:
            EngineError: The engine does not answer.
        """
        try:
            await self._engine.call(lambda client: client.api.unpause(self.name))
        except (NotThere, NameTaken):
            return

    async def has(self, path: str) -> bool:
        """True if it holds a file.

        Raises:
            EngineError: The engine does not answer.
        """
        try:
            await self._engine.call(lambda client: list(client.api.get_archive(self.name, path)[0]))
        except NotThere:
            return False
        return True

    async def remove(self) -> None:
        """Remove it unless it runs, or there is none.

        Raises:
            EngineError: The engine does not answer.
        """
        try:
            await self._engine.call(lambda client: client.api.remove_container(self.name, v=True))
        except NotThere:
            return
