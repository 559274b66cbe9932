"""From a launch spec to its layers."""

import json
from typing import Any

import pytest
from coordinator.serving import make_spec
from google.protobuf.duration_pb2 import Duration

from runyard.coordinator.core.requirements.layers import compile_layers
from runyard.coordinator.core.requirements.requirements import RequirementLayer, StopAfter
from runyard.coordinator.grpc.messages.requests import HIGHEST_PRIORITY, launch_of
from runyard.v1 import placement_pb2, run_pb2


def spec_with(context: dict[str, Any] | None = None, **fields: Any) -> run_pb2.LaunchSpec:
    spec = make_spec(**fields)
    if context is not None:
        spec.code_origin.container_context_json = json.dumps(context)
    return spec


def test_layers_are_in_the_order_in_which_they_go_before_each_other() -> None:
    spec = spec_with(
        {"runyard": {"cluster": "b", "memory": "2Gi"}, "k8s": {"namespace": "shop"}},
        requirements=placement_pb2.Requirements(cluster="a", labels=["zone=a"]),
        tags={"runyard/cluster": "d", "team": "x"},
    )
    ops = RequirementLayer("op train", cluster="c")
    layers = launch_of(spec, ops).layers
    assert [(each.source, each.cluster) for each in layers] == [
        ("deployment", "a"),
        ("code location shop.py", "b"),
        ("op train", "c"),
        ("run tags", "d"),
    ]
    assert compile_layers(layers)[0].cluster == "d"


@pytest.mark.parametrize(
    "context",
    [
        None,
        {},
        {"k8s": {"namespace": "shop"}},
        {"runyard": {}},
        {"runyard": {"env_vars": ["A=1", "B@env:C"]}},
    ],
)
def test_layers_that_say_nothing_are_left_out_but_for_the_deployments(context: dict[str, Any] | None) -> None:
    layers = launch_of(spec_with(context, tags={"team": "x"}), None).layers
    assert layers == (RequirementLayer("deployment"),)


def test_the_policies_of_a_deployment_are_part_of_its_layer() -> None:
    policies = run_pb2.Policies(
        grace=Duration(), max_queue_time=Duration(seconds=5), stop_after=Duration(seconds=90)
    )
    (layer,) = launch_of(spec_with(policies=policies), None).layers
    assert layer == RequirementLayer(
        "deployment", grace=0.0, max_queue_time=5.0, on_disconnect=StopAfter(90.0)
    )


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        (None, 0),
        ("3", 3),
        (" -2 ", -2),
        ("high", 0),
        ("1.5", 0),
        ("", 0),
        ("9" * 30, HIGHEST_PRIORITY),
        ("-" + "9" * 30, -HIGHEST_PRIORITY),
        ("9" * 5_000, 0),
    ],
)
def test_the_priority_is_that_of_dagsters_tag(text: str | None, priority: int) -> None:
    tags = {} if text is None else {"dagster/priority": text}
    assert launch_of(spec_with(tags=tags), None).priority == priority
