"""Compilation of layers."""

import pytest
from pydantic import TypeAdapter

from runyard.coordinator.core.requirements.layers import Origin, compile_layers, origins
from runyard.coordinator.core.requirements.requirements import (
    CompiledRequirements,
    Keep,
    OnDisconnect,
    RequirementLayer,
    StopAfter,
    TimeLimits,
)
from runyard.coordinator.core.requirements.resources import ONE_SLOT, Resources
from runyard.coordinator.core.requirements.tags import layer_from_config

GI = 1 << 30


def layer(source: str, **config: object) -> RequirementLayer:
    return layer_from_config(config, source).from_source(source)


def test_without_layers_a_run_takes_one_slot_of_any_node_with_processes() -> None:
    assert compile_layers([]) == (CompiledRequirements(), TimeLimits(grace=30.0))
    assert CompiledRequirements().driver == "process"


def test_later_layers_override_earlier_ones_field_by_field() -> None:
    requirements, time_limits = compile_layers(
        [
            layer("deployment", cluster="main", node="n", driver="docker", image="a:1", grace=60),
            layer("code location shop", cluster="gpu", image="b:1", max_queue_time="1h"),
            layer("run tags", image="c:1", grace=0, start_timeout=5),
        ]
    )
    assert requirements == CompiledRequirements(cluster="gpu", node="n", driver="docker", image="c:1")
    assert time_limits == TimeLimits(grace=0.0, max_queue_time=3600.0, start_timeout=5.0)


def test_labels_are_overridden_by_key() -> None:
    lower = layer("deployment", labels="zone=a,cores>=4,cores<=8")
    upper = layer("run tags", labels="cores>=16,!spot")
    requirements, _ = compile_layers([lower, upper])
    assert sorted(map(str, requirements.labels)) == ["!spot", "cores>=16", "zone=a"]


def test_resources_are_overridden_by_name_and_zero_cancels() -> None:
    lower = layer("deployment", cpu=2, memory="4Gi", resources={"license": 1})
    middle = layer("op train", gpu=1, memory="16Gi")
    upper = layer("run tags", gpu=0)
    requirements, _ = compile_layers([lower, middle, upper])
    assert dict(requirements.resources) == {"cpu": 2000, "memory": 16 * GI, "license": 1, "slots": 1}


def test_a_run_takes_one_slot_whatever_it_requires() -> None:
    greedy = RequirementLayer("deployment", resources=Resources.of({"slots": 5}))
    assert compile_layers([greedy])[0].resources == ONE_SLOT


def test_tolerations_and_preferences_are_overridden_as_a_whole() -> None:
    lower = layer("deployment", tolerations="a,b", prefer={"zone=a": 5})
    upper = layer("run tags", tolerations="c", prefer="fast")
    requirements, _ = compile_layers([lower, upper])
    assert requirements.tolerations == ("c",)
    assert [str(wish.label) for wish in requirements.preferences] == ["fast"]


@pytest.mark.parametrize(
    ("lower", "upper", "seconds"),
    [("stop_after=5m", "keep", None), ("keep", "stop_after=5m", 300.0), ("stop_after=5m", None, 300.0)],
)
def test_the_highest_layer_decides_on_disconnect(
    lower: str, upper: str | None, seconds: float | None
) -> None:
    layers = [layer("deployment", on_disconnect=lower)]
    layers += [layer("run tags", on_disconnect=upper)] if upper else []
    assert compile_layers(layers)[1].stop_after == seconds


def test_every_field_has_its_source_and_the_overridden_values() -> None:
    layers = [
        layer("deployment", cluster="main", labels="zone=a", memory="4Gi", grace=60),
        layer("op train", memory="16Gi", gpu=1, prefer={"fast": 3, "cheap": 1}, tolerations="gpu"),
        layer("run tags", labels="zone=b,!spot", memory="32Gi", grace="90s", on_disconnect="stop_after=5m"),
    ]
    assert origins(layers) == [
        Origin("cluster", "main", "deployment"),
        Origin("labels.spot", "!spot", "run tags"),
        Origin("labels.zone", "zone=b", "run tags", (("zone=a", "deployment"),)),
        Origin("resources.gpu", "1", "op train"),
        Origin("resources.memory", "32Gi", "run tags", (("16Gi", "op train"), ("4Gi", "deployment"))),
        Origin("tolerations", "gpu", "op train"),
        Origin("prefer", "fast (weight 3),cheap", "op train"),
        Origin("grace", "90s", "run tags", (("60s", "deployment"),)),
        Origin("on_disconnect", "stop_after=300s", "run tags"),
    ]


@pytest.mark.parametrize("choice", [Keep(), StopAfter(5.0)])
def test_layers_come_back_from_the_database_as_they_were(choice: OnDisconnect) -> None:
    layers = (RequirementLayer("run tags", on_disconnect=choice, resources=Resources.stated({"gpu": 0})),)
    kept = TypeAdapter(tuple[RequirementLayer, ...])
    assert kept.validate_python(kept.dump_python(layers, mode="json")) == layers


@pytest.mark.parametrize(("driver", "confining"), [("process", True), ("docker", False)])
def test_required_isolation_needs_a_node_that_can_confine_processes(driver: str, confining: bool) -> None:
    requirements, _ = compile_layers([RequirementLayer(isolation="require", driver=driver)])
    assert requirements.isolation == "require"
    asked = [str(rule) for rule in requirements.labels]
    assert asked == (["runyard/isolation=cgroup2|cgroup1|systemd"] if confining else [])


def test_a_higher_layer_can_cancel_required_isolation() -> None:
    layers = [
        RequirementLayer("rule safe", isolation="require"),
        RequirementLayer("run tags", isolation="none"),
    ]
    requirements, _ = compile_layers(layers)
    assert (requirements.isolation, requirements.labels) == ("none", ())
