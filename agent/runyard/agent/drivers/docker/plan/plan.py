"""Plan of an attempt's container: the owner's settings, then the code location's, then the run's.

The layers are merged as Dagster's own DockerRunLauncher merges them: lists are appended, and an argument of
`container_kwargs` replaces the whole argument of the layer below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runyard.agent.config.docker import DockerSettings, PullPolicy
from runyard.agent.config.docker_kwargs import (
    IGNORED,
    conflicting_kwargs,
    label_map,
    volume_list,
)
from runyard.agent.drivers.docker.plan.context import BadContext, DockerContext, read_context
from runyard.agent.drivers.docker.plan.gpus import device_requests
from runyard.agent.spec_record.environment import ResolvedEnvironment
from runyard.v1 import run_pb2

DRIVER_NAME = "docker"

TOOLS = "/.runyard"
"""Folder in the container that holds what Runyard needs there: no image has it."""

ENTER = f"{TOOLS}/enter.py"
"""The first program in the container; see `enter.py`."""


class UnusablePlan(Exception):
    """No container can be made of the launch here; the message says why."""


@dataclass(frozen=True)
class ContainerPlan:
    """Everything that the engine is asked for, except the environment and the command."""

    image: str
    pull: PullPolicy = "if-not-present"
    networks: list[str] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of `containers.create`."""

    def as_record(self) -> dict[str, Any]:
        """For `SpecRecord.container`."""
        return asdict(self)

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> "ContainerPlan":
        """From `SpecRecord.container`.

        Raises:
            TypeError: It is another agent's, of a version that this one cannot read.
        """
        return cls(**values)


def plan_container(settings: DockerSettings, spec: run_pb2.LaunchSpec) -> ContainerPlan:
    """The container of a launch. Whether it is allowed is decided in `runyard.agent.admission.trust`.

    Raises:
        UnusablePlan: The launch names no image, or asks for something that cannot be.
    """
    asked_image = spec.requirements.image or spec.code_origin.image
    try:
        context = read_context(spec.code_origin.container_context_json)
        for name, remedy in conflicting_kwargs(context.container_kwargs).items():
            raise BadContext(f"container_context: docker: container_kwargs: {name}: {remedy}")
        image = asked_image or settings.image
        if not image:
            raise UnusablePlan(
                "no image: set the tag runyard/image, the code location's container image, or docker.image "
                "of this agent"
            )
        kwargs = _merged(settings, context)
        kwargs["labels"] |= _labels_of(spec)
    except ValueError as error:
        raise UnusablePlan(str(error)) from error
    return ContainerPlan(
        image=image,
        pull=settings.pull,
        networks=[*settings.networks, *context.networks],
        kwargs=_with_resources(kwargs, spec.requirements.resources),
    )


def container_environment(
    settings: DockerSettings,
    given: ResolvedEnvironment,
    spec: run_pb2.LaunchSpec,
    own: Mapping[str, str],
) -> dict[str, str]:
    """The environment of a worker in a container; later wins. Nothing else of the agent's own gets in.

    Args:
        settings: The agent's.
        given: What a worker of the launch is given, whatever its driver.
        spec: The launch.
        own: The agent's own environment, from which variables are taken that are given by name alone.

    Raises:
        UnusablePlan: A variable that is given by name alone is not set.
    """
    try:
        context = read_context(spec.code_origin.container_context_json)
    except BadContext as error:
        raise UnusablePlan(str(error)) from error
    named = _resolved((*settings.env_vars, *context.env_vars), own)
    return {**given.by_owner, **named, **given.by_launch}


def container_command(settings: DockerSettings, spec: run_pb2.LaunchSpec, verb: str) -> list[str]:
    """Command of the container, after the image's entrypoint if it has one.

    Args:
        settings: The agent's.
        spec: The launch.
        verb: `execute_run` or `resume_run`.
    """
    python = settings.python or spec.code_origin.executable or "python"
    return [python, ENTER, verb, spec.run_id]


def _resolved(entries: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals and name not in own:
            raise UnusablePlan(f"environment variable {name} is to be passed on, but this agent has it not")
        values[name] = value if equals else own[name]
    return values


def _merged(settings: DockerSettings, context: DockerContext) -> dict[str, Any]:
    kwargs = {**settings.container_kwargs, **context.container_kwargs}
    labels = {**settings.labels, **label_map(kwargs.pop("labels", None) or {})}
    volumes = [*settings.volumes, *volume_list(kwargs.pop("volumes", None) or [])]
    for name in IGNORED:
        kwargs.pop(name, None)
    # Without an init, the worker would be PID 1, which ignores SIGTERM until Dagster has handlers for it.
    return {"init": True, **kwargs, "labels": labels, "volumes": volumes}


def _labels_of(spec: run_pb2.LaunchSpec) -> dict[str, str]:
    """The labels by which Dagster's own launcher marks containers."""
    return {"dagster/run_id": spec.run_id, "dagster/job_name": spec.code_origin.job}


def _with_resources(kwargs: dict[str, Any], resources: Mapping[str, int]) -> dict[str, Any]:
    """A run's reservation is also its limit; it overrides any limit in `kwargs`."""
    if cpu := resources.get("cpu"):
        for name in ("cpu_period", "cpu_quota", "cpu_count", "cpu_percent"):  # the engine takes only one kind
            kwargs.pop(name, None)
        kwargs["nano_cpus"] = cpu * 1_000_000
    if memory := resources.get("memory"):
        kwargs["mem_limit"] = memory
        kwargs["memswap_limit"] = memory  # memory and swap together: so there is no swap
    if pids := resources.get("pids"):
        kwargs["pids_limit"] = pids
    if shared := resources.get("shm"):
        kwargs["shm_size"] = shared
    if gpus := resources.get("gpu"):
        kwargs["device_requests"] = device_requests(gpus)
    return kwargs
