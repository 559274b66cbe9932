"""Parts of a placement case: a job as Dagster stores it, a routing file, nodes, and a real core.

Nothing here listens on a socket; everything else is what the coordinator itself uses.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from coordinator.fleet_building import FleetTrial, finished, make_hello, running
from coordinator.requirements.jobs import shape_of
from dagster._core.definitions.node_definition import NodeDefinition

from runyard.common.quantities import parse_quantity
from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.core.events.on_operator import on_cordon, on_drain
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Launch, Run
from runyard.coordinator.core.requirements.ops import ops_layer
from runyard.coordinator.grpc.messages.requests import check_spec, launch_of
from runyard.coordinator.routing_config.reading import read_routing
from runyard.v1 import placement_pb2, run_pb2

HEARTBEAT = 4.0
"""Seconds between two heartbeats of every node."""

Tags = Mapping[str, str]


# Jobs


def op(name: str, **asks: str) -> dg.OpDefinition:
    """An op; `memory="1Gi"` is its tag `runyard/memory`."""
    return dg.OpDefinition(name=name, compute_fn=lambda _: None, tags=tags(**asks))


def tags(**asks: str) -> dict[str, str]:
    """Tags as keywords: `memory="1Gi"` is `runyard/memory`, `dagster__priority="1"` is `dagster/priority`."""
    return {
        name.replace("__", "/") if "__" in name else f"runyard/{name}": value for name, value in asks.items()
    }


def job(*ops: NodeDefinition, executor: dg.ExecutorDefinition = dg.in_process_executor) -> dg.JobDefinition:
    """A job whose ops are independent; by default it runs them one by one."""
    return dg.GraphDefinition(name="orders", node_defs=list(ops)).to_job(executor_def=executor)


PLAIN = job(op("greet"))
"""A job without requirements."""


# Nodes


@dataclass(frozen=True)
class NodeOffer:
    """A node of a case.

    Attributes:
        amounts: What it offers beside slots, as people write it.
        state: `ready`, `cordoned`, `draining` or `silent`.
    """

    name: str
    cluster: str = "main"
    slots: int = 4
    amounts: Mapping[str, str | int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()
    drivers: Sequence[str] = ("process",)
    largest_run: Mapping[str, str | int] = field(default_factory=dict)
    state: str = "ready"

    def join(self, trial: FleetTrial) -> int:
        """Joins, and returns the number of the session."""
        hello = make_hello(
            self.name,
            cluster=self.cluster,
            slots=self.slots,
            resources=_in_units(self.amounts),
            labels=dict(self.labels),
            taints=self.taints,
            drivers=self.drivers,
        )
        hello.offer.largest_run.update(_in_units(self.largest_run))
        hello.offer.gateway = bool(self.largest_run)
        session = trial.join(hello)
        match self.state:
            case "cordoned":
                trial.step(lambda fleet, at: on_cordon(fleet, at, self.name))
            case "draining":
                trial.step(lambda fleet, at: on_drain(fleet, at, self.name, None))
            case "silent":
                trial.leave(session, self.name)
        return session


def _in_units(amounts: Mapping[str, str | int]) -> dict[str, int]:
    return {name: parse_quantity(name, amount) for name, amount in amounts.items()}


def node(name: str, cluster: str = "main", slots: int = 4, **amounts: str | int) -> NodeOffer:
    """A node that is ready and has no labels."""
    return NodeOffer(name, cluster, slots, amounts)


def labelled(name: str, cluster: str = "main", **labels: str) -> NodeOffer:
    """A node with labels."""
    return NodeOffer(name, cluster, labels=labels)


# Runs


@dataclass(frozen=True)
class Asked:
    """A run of a case, as its deployment launches it."""

    job: dg.JobDefinition = PLAIN
    tags: Tags = field(default_factory=dict)
    location: str = "shop"
    context: Mapping[str, Any] = field(default_factory=dict)
    deployment: placement_pb2.Requirements = field(default_factory=placement_pb2.Requirements)
    steps: Sequence[str] = ()
    execution: Mapping[str, Any] = field(default_factory=dict)

    def spec(self, run_id: str) -> run_pb2.LaunchSpec:
        """The spec that the launcher sends."""
        return run_pb2.LaunchSpec(
            run_id=run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args="{}",
            code_origin=run_pb2.CodeOrigin(
                location=self.location,
                repository="books",
                job=self.job.name,
                container_context_json=json.dumps({"runyard": dict(self.context)}) if self.context else "",
            ),
            tags=dict(self.tags),
            requirements=self.deployment,
            deployment="default",
            step_keys=self.steps,
            execution_config_json=json.dumps(dict(self.execution)) if self.execution else "",
        )

    def launch(self, run_id: str) -> Launch:
        """As the coordinator reads it.

        Raises:
            FleetError: It cannot be understood.
        """
        spec = self.spec(run_id)
        check_spec(spec)
        return launch_of(spec, ops_layer(shape_of(self.job), self.steps, self.execution))


def asked(job_or_tags: dg.JobDefinition | None = None, /, **asks: str) -> Asked:
    """A run with these tags; see `tags`."""
    return Asked(job_or_tags or PLAIN, tags(**asks))


class InMemoryCluster:
    """Nodes under the rules of a routing file, and the runs that were launched there."""

    def __init__(self, fleet: Sequence[NodeOffer], routing: str = "") -> None:
        self.trial = FleetTrial()
        if routing:
            config = read_routing(routing.encode()).config
            self.trial.step(lambda fleet, at: on_config_change(fleet, at, config))
        self._sessions = {each.name: each.join(self.trial) for each in fleet}
        self._silent = {each.name for each in fleet if each.state == "silent"}
        self._launched = 0

    def launch(self, run: Asked) -> str:
        """Launches, and returns the run's ID.

        Raises:
            FleetError: The coordinator refuses it.
        """
        self._launched += 1
        run_id = f"00000000-0000-4000-8000-{self._launched:012}"
        self.trial.launch(run.launch(run_id))
        return run_id

    def end(self, run_id: str) -> None:
        """The run's worker exits."""
        place = self.run(run_id).place
        assert place is not None
        self.trial.report(self._sessions[place.node], finished(run_id), place.node)

    def wait(self, seconds: float) -> None:
        """Time passes; every node that is not silent sends its heartbeats."""
        while seconds > 0:
            step = min(HEARTBEAT, seconds)
            self.trial.tick(step)
            seconds -= step
            for name, session in self._sessions.items():
                if name not in self._silent:
                    self.trial.beat(session, *self._attempts(name), node_id=name)

    def _attempts(self, name: str) -> list[Any]:
        return [running(run.run_id, run.attempt) for run in self.trial.fleet.live_on(name)]

    def run(self, run_id: str) -> Run:
        """The run as it is now."""
        return self.trial.run(run_id)

    def node_of(self, run_id: str) -> str:
        """Node of the run; empty while it waits."""
        return self.trial.node_of(run_id)

    def news(self, run_id: str) -> str:
        """The coordinator's message about the run."""
        return situation(self.trial.fleet, self.run(run_id))


# Cases


@dataclass(frozen=True)
class Case:
    """A case: a sentence about one run, and its parts.

    Attributes:
        goes: The node that the run goes to.
        waits: Part of the reason for which it waits.
        refused: Part of the reason for which it is refused.
        busy: Runs that were launched before and are still there.
        after: Seconds that pass before we look.
    """

    says: str
    run: Asked = field(default_factory=Asked)
    fleet: Sequence[NodeOffer] = (NodeOffer("a"),)
    goes: str = ""
    waits: str = ""
    refused: str = ""
    rules: str = ""
    busy: Sequence[Asked] = ()
    after: float = 0.0


ZONES = (labelled("a", zone="a"), labelled("b", zone="b"))
CLUSTERS = (node("m", "main", slots=1), node("x", "annex", slots=1))
SIZES = (node("small", cpu=4, memory="8Gi"), node("large", cpu=32, memory="128Gi"))
