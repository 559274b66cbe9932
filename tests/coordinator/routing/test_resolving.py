"""Requirements and route of a run under the operator's rules."""

from dataclasses import replace

import pytest
from coordinator.routing.launches import launch_of

from runyard.coordinator.core.errors import LaunchRefused
from runyard.coordinator.core.model import Launch
from runyard.coordinator.core.requirements.labels import label_is
from runyard.coordinator.core.requirements.requirements import RequirementLayer, StopAfter
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.resolve_launch import all_layers, resolved
from runyard.coordinator.core.routing.rules import ANYWHERE, Match, Order, Route, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import (
    DEFAULT_CONFIG,
    NoRuleAction,
    QueueConfig,
    SchedulingConfig,
)

A100 = RequirementLayer(labels=(label_is("gpu", "a100"),), resources=Resources.of({"gpu": 1}))
TWO = (WeightedCluster("gpu-a", 3), WeightedCluster("gpu-b"))
TRAINING = Rule("training", Match(job=("train_*",)), TWO, Order.WEIGHTED, 60.0, A100)
ELSEWHERE = Rule("reports", Match(job=("report_*",)), (WeightedCluster("rack9"),))
LABELS_ONLY = replace(TRAINING, clusters=(), order=Order.FIRST_FIT, spill_after=0.0)

BY_RULES = SchedulingConfig(rules=(ELSEWHERE, TRAINING))
BY_DEFAULT = SchedulingConfig(rules=(ELSEWHERE,), default_cluster="rack1")


def only(cluster: str, rule: str = "") -> Route:
    return Route(rule, (WeightedCluster(cluster),))


TO_C = {"deployment": RequirementLayer(), "tags": RequirementLayer(cluster="c")}
TO_NODE = {"deployment": RequirementLayer(), "tags": RequirementLayer(node="node-7")}
DEPLOYED_TO_D = {"deployment": RequirementLayer(cluster="d")}

ROUTES: dict[str, tuple[SchedulingConfig, Launch, Route]] = {
    "without rules a run may go anywhere": (DEFAULT_CONFIG, launch_of(), ANYWHERE),
    "the rule that matches says where": (BY_RULES, launch_of(), Route("training", TWO, Order.WEIGHTED, 60.0)),
    "no rule leaves the default cluster": (BY_DEFAULT, launch_of(), only("rack1")),
    "a rule overrides the default cluster": (
        BY_DEFAULT,
        launch_of(job="report_sales"),
        only("rack9", "reports"),
    ),
    "a rule without clusters leaves the default one": (
        SchedulingConfig(rules=(LABELS_ONLY,), default_cluster="rack1"),
        launch_of(),
        only("rack1", "training"),
    ),
    "a rule without clusters lets the run go anywhere": (
        SchedulingConfig(rules=(LABELS_ONLY,), on_no_matching_rule=NoRuleAction.FAIL),
        launch_of(),
        Route("training"),
    ),
    "the run's own cluster overrides the rule": (BY_RULES, launch_of(layers=TO_C), only("c", "training")),
    "the run's own cluster overrides the default": (BY_DEFAULT, launch_of(layers=TO_C), only("c")),
    "the run's own cluster needs no rule": (
        SchedulingConfig(on_no_matching_rule=NoRuleAction.FAIL),
        launch_of(layers=TO_C),
        only("c"),
    ),
    "the run's own node may be in any cluster": (BY_RULES, launch_of(layers=TO_NODE), Route("training")),
    "the deployment's cluster overrides the default": (
        BY_DEFAULT,
        launch_of(layers=DEPLOYED_TO_D),
        only("d"),
    ),
    "a rule overrides the deployment's cluster": (
        BY_RULES,
        launch_of(layers=DEPLOYED_TO_D),
        Route("training", TWO, Order.WEIGHTED, 60.0),
    ),
    "a rule without clusters leaves the deployment's": (
        SchedulingConfig(rules=(LABELS_ONLY,)),
        launch_of(layers=DEPLOYED_TO_D),
        only("d", "training"),
    ),
    "no rule and a queue for such runs: it waits": (
        SchedulingConfig(rules=(ELSEWHERE,), on_no_matching_rule=NoRuleAction.QUEUE),
        launch_of(),
        Route(closed="no routing rule matches job 'train_model' of code location 'ml'; it waits for one"),
    ),
}


@pytest.mark.parametrize("case", ROUTES)
def test_route(case: str) -> None:
    config, launch, route = ROUTES[case]
    assert resolved(launch, config).route == route


def test_run_that_no_rule_matches_is_refused_by_name_where_every_run_needs_one() -> None:
    config = SchedulingConfig(rules=(ELSEWHERE,), on_no_matching_rule=NoRuleAction.FAIL)
    with pytest.raises(LaunchRefused, match=r"job 'train_model' of code location 'ml'.*add a rule"):
        resolved(launch_of(), config)


def test_clusters_of_a_rule_override_the_cluster_in_the_deployments_requirements_too() -> None:
    assert resolved(launch_of(layers=DEPLOYED_TO_D), BY_RULES).requirements.cluster == ""


# Layers


def test_layers_go_from_the_defaults_over_deployment_and_rule_to_the_run_tags() -> None:
    config = replace(BY_RULES, defaults=RequirementLayer(grace=5.0))
    said = {
        "deployment": RequirementLayer(grace=6.0),
        "code location ml": RequirementLayer(),
        "op train": RequirementLayer(),
        "tags": RequirementLayer(),
    }
    sources = [layer.source for layer in all_layers(launch_of(layers=said), config)]
    assert sources == [
        "coordinator defaults",
        "deployment",
        "rule training",
        "code location ml",
        "op train",
        "tags",
    ]


def test_run_that_no_rule_matches_has_no_layer_of_a_rule() -> None:
    assert [layer.source for layer in all_layers(launch_of(), BY_DEFAULT)] == [
        "coordinator defaults",
        "deployment",
    ]


def test_later_layers_override_earlier_ones() -> None:
    config = SchedulingConfig(
        defaults=RequirementLayer(
            grace=5.0, driver="exec", resources=Resources.of({"cpu": 1000, "memory": 1})
        ),
        rules=(replace(TRAINING, requirements=RequirementLayer(grace=7.0, on_disconnect=StopAfter(90.0))),),
    )
    said = {
        "deployment": RequirementLayer(grace=6.0, resources=Resources.of({"memory": 2})),
        "tags": RequirementLayer(driver="vm"),
    }
    launch = resolved(launch_of(layers=said), config)
    assert launch.requirements.driver == "vm"
    assert launch.requirements.resources == Resources.of({"cpu": 1000, "memory": 2, "slots": 1})
    assert (launch.time_limits.grace, launch.time_limits.stop_after) == (7.0, 90.0)


def test_layers_of_the_launch_stay_as_they_were() -> None:
    launch = launch_of(
        layers={"deployment": RequirementLayer(grace=6.0), "tags": RequirementLayer(driver="vm")}
    )
    after = resolved(launch, BY_RULES)
    assert after.layers == launch.layers
    assert resolved(after, DEFAULT_CONFIG) == resolved(launch, DEFAULT_CONFIG)


def test_adopted_launch_keeps_the_requirements_that_its_agent_reported() -> None:
    adopted = replace(launch_of(), layers=())
    assert resolved(adopted, replace(BY_RULES, on_no_matching_rule=NoRuleAction.FAIL)) == adopted


# Shares

BY_TEAM = SchedulingConfig(queue=QueueConfig(share_by="team"))


@pytest.mark.parametrize(
    ("config", "tags", "share"),
    [
        (DEFAULT_CONFIG, {"team": "vision"}, "ml"),
        (BY_TEAM, {"team": "vision"}, "vision"),
        (BY_TEAM, {"team": ""}, "ml"),
        (BY_TEAM, {}, "ml"),
    ],
    ids=["by code location", "by tag", "by an empty tag", "by a tag that the run lacks"],
)
def test_share_is_the_tags_value_or_the_code_location(
    config: SchedulingConfig, tags: dict[str, str], share: str
) -> None:
    assert resolved(launch_of(tags=tags), config).share == share
