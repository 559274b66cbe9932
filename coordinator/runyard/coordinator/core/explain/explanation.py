"""Explanation of a run's placement, or of where a launch would go. Changes nothing."""

from typing import Final

from runyard.common.defaults import DRIVER
from runyard.coordinator.core.errors import FleetError, LaunchRefused, QueueFull
from runyard.coordinator.core.explain.examination import Examination, examine
from runyard.coordinator.core.explain.wording import CALLED, situation
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.launch_admission import queued_run, require_acceptable, require_bearable
from runyard.coordinator.core.model import (
    Assigned,
    Finished,
    Instant,
    Launch,
    Place,
    Placed,
    Queued,
    Run,
    Running,
    Starting,
)
from runyard.coordinator.core.requirements.layers import origins
from runyard.coordinator.core.requirements.requirements import CompiledRequirements, RequirementLayer
from runyard.coordinator.core.requirements.resources import SLOTS, Resources
from runyard.coordinator.core.resolve_launch import all_layers, resolved
from runyard.coordinator.core.scheduling.config import SchedulingConfig, Strategy
from runyard.coordinator.core.scheduling.reasons import availability
from runyard.v1 import placement_pb2

FORMER: Final = "when it was placed"
"""Source of requirements that were compiled under earlier rules."""

Explanation = placement_pb2.Explanation


def explain_run(fleet: Fleet, now: Instant, run: Run) -> Explanation:
    """Explain where the run is, or why it waits."""
    match run.phase:
        case Queued():
            examination = examine(fleet, run, now)
            explanation = _examined(f"run {run.run_id} is {situation(fleet, run)}", examination)
        case Finished() as finished:
            explanation = Explanation(verdict=f"run {run.run_id} {_ended(finished)}")
        case placed:
            silent = "; the node is silent" if fleet.unreachable(run) else ""
            where = _where(placed.place)
            explanation = Explanation(verdict=f"run {run.run_id} {_verb(placed)} {where}{silent}")
    explanation.verdict += _not_started(run, explanation.verdict)
    explanation.rule = run.launch.route.rule
    explanation.fields.extend(_fields(run.launch, fleet.config))
    explanation.priority = run.launch.priority
    explanation.effective_priority = explanation.effective_priority or run.launch.priority
    explanation.share = run.launch.share
    return explanation


def explain_launch(fleet: Fleet, now: Instant, launch: Launch) -> Explanation:
    """Explain where the launch would go now; that it would be refused is an explanation too.

    Raises:
        FleetError: Its requirements contradict each other.
    """
    fields = _origins(all_layers(launch, fleet.config))
    try:
        launch = resolved(launch, fleet.config)
    except LaunchRefused as refusal:
        return Explanation(verdict=_refused(refusal), fields=fields)
    examination = examine(fleet, queued_run(None, launch, now), now)
    try:
        require_bearable(fleet, launch)
        require_acceptable(fleet, launch)
        explanation = _examined(_prospect(examination, fleet.config.strategy), examination)
    except (LaunchRefused, QueueFull) as refusal:
        explanation = _examined(_refused(refusal), examination)
        explanation.ClearField("waits_for")
    explanation.rule = launch.route.rule
    explanation.fields.extend(fields)
    return explanation


# Summary sentences


def _verb(placed: Placed) -> str:
    match placed:
        case Assigned():
            return "was given to"
        case Starting():
            return "starts on"
        case Running():
            return "runs on"
        case _:
            return "is being stopped on"


def _ended(finished: Finished) -> str:
    how = f": {finished.outcome.message}" if finished.outcome.message else ""
    if finished.place is None:
        return f"is over, and never had a node{how}"
    return f"is over{how}; it was on {_where(finished.place)}"


def _not_started(run: Run, said: str) -> str:
    """Return the nodes that did not start the run, unless the text names them already."""
    return "".join(
        f"; node {node} did not start it: {why}" for node, why in run.refused_by if why not in said
    )


def _refused(refusal: FleetError) -> str:
    return f"such a run would be refused: {refusal}"


def _where(place: Place) -> str:
    because = f": {place.because}" if place.because else ""
    return f"node {place.node} of cluster {place.cluster}{because}"


def _prospect(examination: Examination, strategy: Strategy) -> str:
    if examination.waits_for or not examination.nodes:
        reasons = availability(dict(examination.reasons))
        return f"such a run would wait for {examination.waits_for or 'a node'} ({reasons})"
    best = examination.nodes[0]
    many = examination.free > 1
    how = f"best of {examination.free} free nodes by {CALLED[strategy]}" if many else "the only free node"
    return f"such a run would go to node {best.node_id} of cluster {best.cluster}: {how}"


# Requirements


def _fields(launch: Launch, config: SchedulingConfig) -> list[placement_pb2.ExplainedField]:
    """Return the fields by layer; as one layer if the rules have changed since the placement."""
    try:
        is_current = bool(launch.layers) and resolved(launch, config).requirements == launch.requirements
    except FleetError:
        is_current = False
    layers = (
        all_layers(launch, config) if is_current else [_as_layer(launch.requirements).from_source(FORMER)]
    )
    return _origins(layers)


def _origins(layers: list[RequirementLayer]) -> list[placement_pb2.ExplainedField]:
    return [
        placement_pb2.ExplainedField(
            name=origin.field,
            value=origin.value,
            source=origin.source,
            overridden=[f"{value} ({source})" for value, source in origin.overridden],
        )
        for origin in origins(layers)
    ]


def _as_layer(requirements: CompiledRequirements) -> RequirementLayer:
    """Return the requirements as one layer."""
    return RequirementLayer(
        cluster=requirements.cluster or None,
        node=requirements.node or None,
        labels=requirements.labels,
        driver=requirements.driver if requirements.driver != DRIVER else None,
        resources=Resources.of({name: much for name, much in requirements.resources if name != SLOTS}),
        tolerations=requirements.tolerations,
        preferences=requirements.preferences,
        image=requirements.image or None,
        isolation=requirements.isolation or None,
    )


# Results


def _examined(verdict: str, examination: Examination) -> Explanation:
    return Explanation(
        verdict=verdict,
        clusters=[
            placement_pb2.ClusterChoice(
                name=cluster.name,
                closed=cluster.closed,
                utilization=cluster.utilization,
                nodes_ready=cluster.nodes_ready,
            )
            for cluster in examination.clusters
        ],
        filters=[
            placement_pb2.FilterCount(reason=reason, nodes=count) for reason, count in examination.reasons
        ],
        nodes=[
            placement_pb2.NodeScore(
                node=node.node_id, cluster=node.cluster, total=node.total, marks=node.scores
            )
            for node in examination.nodes
        ],
        queue_position=examination.position,
        queue_length=examination.length,
        waits_for=examination.waits_for,
        priority=examination.priority,
        effective_priority=examination.effective_priority,
        share=examination.share,
    )
