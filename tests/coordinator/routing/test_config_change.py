"""Effect of a changed routing file on runs."""

from dataclasses import replace

import pytest
from coordinator.fleet_building import RUN, FleetTrial, make_hello, running
from coordinator.routing.launches import launch_of

from runyard.coordinator.core.events.on_config_change import changes, on_config_change
from runyard.coordinator.core.requirements.requirements import RequirementLayer, StopAfter
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.rules import Match, Order, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import (
    DEFAULT_CONFIG,
    NoNodeAction,
    NoRuleAction,
    QueueConfig,
    Quota,
    SchedulingConfig,
    Strategy,
)

TO_WEST = Rule("west", Match(), (WeightedCluster("west"),))
VM_IN_WEST = SchedulingConfig(rules=(replace(TO_WEST, requirements=RequirementLayer(driver="vm")),))
NEEDS_A_RULE = SchedulingConfig(on_no_matching_rule=NoRuleAction.QUEUE)


def decide(trial: FleetTrial, config: SchedulingConfig) -> int:
    return trial.step(lambda fleet, at: on_config_change(fleet, at, config))


@pytest.fixture
def trial() -> FleetTrial:
    """A node in the cluster `west`, and a run that waits for a rule."""
    trial = FleetTrial()
    trial.join(make_hello("w", cluster="west"))
    decide(trial, NEEDS_A_RULE)
    trial.launch(launch_of())
    trial.asked.clear()
    assert trial.phase() == "queued"
    return trial


def test_new_rule_places_the_runs_that_waited_for_it(trial: FleetTrial) -> None:
    assert decide(trial, SchedulingConfig(rules=(TO_WEST,))) == 1
    assert trial.node_of() == "w"
    assert trial.run().launch.route.rule == "west"


def test_requirements_of_a_new_rule_apply_to_waiting_runs(trial: FleetTrial) -> None:
    decide(trial, VM_IN_WEST)
    assert trial.phase() == "queued"
    assert trial.run().launch.requirements.driver == "vm"
    decide(trial, SchedulingConfig(rules=(TO_WEST,)))
    assert trial.node_of() == "w"


def test_run_with_a_node_keeps_what_it_was_placed_by(trial: FleetTrial) -> None:
    decide(trial, SchedulingConfig(rules=(TO_WEST,)))
    before = trial.run()
    assert decide(trial, VM_IN_WEST) == 0
    assert trial.run() == before


def test_run_that_could_not_be_launched_any_more_waits_with_the_reason(trial: FleetTrial) -> None:
    decide(trial, SchedulingConfig(on_no_matching_rule=NoRuleAction.FAIL))
    assert trial.phase() == "queued"
    assert "no routing rule matches job 'train_model'" in trial.run().launch.route.closed
    decide(trial, DEFAULT_CONFIG)
    assert trial.node_of() == "w"


def test_rule_that_would_have_nodes_stop_runs_between_two_heartbeats_holds_them_back(
    trial: FleetTrial,
) -> None:
    decide(
        trial,
        SchedulingConfig(
            rules=(replace(TO_WEST, requirements=RequirementLayer(on_disconnect=StopAfter(0.5))),)
        ),
    )
    assert trial.phase() == "queued"
    assert "stop_after is 0.5 s" in trial.run().launch.route.closed


def test_run_that_a_rule_closes_is_not_placed() -> None:
    trial = FleetTrial()
    trial.join(make_hello("w", cluster="west"))
    decide(trial, NEEDS_A_RULE)
    trial.launch(launch_of())
    trial.tick(after=60.0)
    assert trial.phase() == "queued"


def test_run_that_its_node_refuses_waits_by_the_current_rules(trial: FleetTrial) -> None:
    session = trial.join(make_hello("w", cluster="west"))
    decide(trial, SchedulingConfig(rules=(TO_WEST,)))
    trial.join(make_hello("e", cluster="east"))
    decide(trial, SchedulingConfig(rules=(Rule("east", Match(), (WeightedCluster("east"),)),)))
    trial.reject(session, node_id="w")
    assert trial.node_of() == "e"
    assert trial.run().launch.route.rule == "east"


def test_only_runs_that_are_affected_are_written(trial: FleetTrial) -> None:
    trial.launch(launch_of(job="other", run_id="run-2"))
    trial.asked.clear()
    narrow = replace(TO_WEST, match=Match(job=("other",)), clusters=(WeightedCluster("east"),))
    assert decide(trial, replace(NEEDS_A_RULE, rules=(narrow,))) == 1
    assert [type(phase).__name__ for phase in trial.asked.saved("run-2")] == ["Queued"]
    assert trial.asked.saved(RUN) == []


def test_running_run_is_left_alone(trial: FleetTrial) -> None:
    decide(trial, DEFAULT_CONFIG)
    session = trial.join(make_hello("w", cluster="west", attempts=[running()]))
    assert trial.phase() == "running"
    decide(trial, SchedulingConfig(on_no_matching_rule=NoRuleAction.FAIL))
    assert trial.phase() == "running"
    trial.leave(session, "w")


# In words

GPU = Quota(limit=Resources.of({"gpu": 2}))
EAST = replace(TO_WEST, name="east")

CHANGES = {
    "nothing": (DEFAULT_CONFIG, SchedulingConfig(), []),
    "a rule more": (DEFAULT_CONFIG, SchedulingConfig(rules=(EAST,)), ["rule east added"]),
    "a rule less": (SchedulingConfig(rules=(EAST,)), DEFAULT_CONFIG, ["rule east removed"]),
    "a rule otherwise": (
        SchedulingConfig(rules=(EAST,)),
        SchedulingConfig(rules=(replace(EAST, order=Order.SPREAD),)),
        ["rule east changed"],
    ),
    "rules the other way round": (
        SchedulingConfig(rules=(EAST, TO_WEST)),
        SchedulingConfig(rules=(TO_WEST, EAST)),
        ["rules in another order"],
    ),
    "a rule in front": (
        SchedulingConfig(rules=(EAST,)),
        SchedulingConfig(rules=(TO_WEST, EAST)),
        ["rule west added"],
    ),
    "everything else": (
        DEFAULT_CONFIG,
        SchedulingConfig(
            RequirementLayer(grace=1.0),
            Strategy.SPREAD,
            (),
            "west",
            NoRuleAction.FAIL,
            NoNodeAction.QUEUE,
            QueueConfig(limit=1),
            {"ml": GPU},
        ),
        [
            "defaults changed",
            "placement changed",
            "default_cluster changed",
            "on_no_matching_rule changed",
            "on_no_eligible_node changed",
            "queue changed",
            "quota ml added",
        ],
    ),
    "quotas": (
        SchedulingConfig(quotas={"a": GPU, "b": GPU, "c": GPU}),
        SchedulingConfig(quotas={"b": Quota(guaranteed=GPU.limit), "c": GPU}),
        ["quota a removed", "quota b changed"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_change_is_described_in_words(case: str) -> None:
    before, after, words = CHANGES[case]
    assert changes(before, after) == words
