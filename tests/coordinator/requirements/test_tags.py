"""Schema of requirements, as tags and as a dictionary."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.labels import label_is, parse_label_rule
from runyard.coordinator.core.requirements.requirements import (
    EMPTY_LAYER,
    Keep,
    Preference,
    RequirementLayer,
    StopAfter,
)
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.requirements.tags import SCHEMA, layer_from_config, layer_from_tags

GI = 1 << 30


def rules(*texts: str) -> RequirementLayer:
    return RequirementLayer(labels=tuple(map(parse_label_rule, texts)))


def amounts(**given_amounts: int) -> RequirementLayer:
    return RequirementLayer(resources=Resources.stated(given_amounts))


def prefers(**weights: int) -> RequirementLayer:
    return RequirementLayer(
        preferences=tuple(Preference(parse_label_rule(key), each) for key, each in weights.items())
    )


IN_A_DICTIONARY: list[tuple[dict[str, Any], RequirementLayer]] = [
    ({}, EMPTY_LAYER),
    ({"cluster": "gpu"}, RequirementLayer(cluster="gpu")),
    ({"node": " node-7 "}, RequirementLayer(node="node-7")),
    ({"driver": "docker"}, RequirementLayer(driver="docker")),
    ({"image": "registry.example/etl:1.2"}, RequirementLayer(image="registry.example/etl:1.2")),
    ({"labels": {"zone": "a"}}, rules("zone=a")),
    ({"labels": {"zone": ["a", "b"]}}, rules("zone=a|b")),
    ({"labels": {"zone": "a|b"}}, rules("zone=a|b")),
    ({"labels": {}}, EMPTY_LAYER),
    ({"labels": "zone=a|b, !spot"}, rules("!spot", "zone=a|b")),
    ({"labels": ["zone=a", "cores>=16", "cores<=32"]}, rules("cores<=32", "cores>=16", "zone=a")),
    ({"prefer": "fast"}, prefers(fast=1)),
    ({"prefer": ["fast", {"cheap": 5}]}, prefers(fast=1, cheap=5)),
    ({"prefer": {"fast": 2, "cheap": 1000}}, prefers(fast=2, cheap=1000)),
    ({"tolerations": "gpu, team=x"}, RequirementLayer(tolerations=("gpu", "team=x"))),
    ({"tolerations": ["*"]}, RequirementLayer(tolerations=("*",))),
    ({"cpu": 2, "memory": "16Gi", "gpu": 1}, amounts(cpu=2000, memory=16 * GI, gpu=1)),
    ({"cpu": "500m", "memory": 4 * GI}, amounts(cpu=500, memory=4 * GI)),
    ({"gpu": 0}, amounts(gpu=0)),
    ({"resources": {"license": 2, "fpga": "1"}, "cpu": 1}, amounts(cpu=1000, license=2, fpga=1)),
    ({"on_disconnect": "keep"}, RequirementLayer(on_disconnect=Keep())),
    ({"on_disconnect": "stop_after=5m"}, RequirementLayer(on_disconnect=StopAfter(300))),
    ({"on_disconnect": {"stop_after": 90}}, RequirementLayer(on_disconnect=StopAfter(90))),
    ({"grace": 0}, RequirementLayer(grace=0.0)),
    ({"grace": "1m"}, RequirementLayer(grace=60.0)),
    (
        {"max_queue_time": 3600, "start_timeout": "90.5s"},
        RequirementLayer(max_queue_time=3600.0, start_timeout=90.5),
    ),
]


@pytest.mark.parametrize(("config", "layer"), IN_A_DICTIONARY)
def test_the_dictionary_becomes_a_layer(config: dict[str, Any], layer: RequirementLayer) -> None:
    read = layer_from_config(config, "rule gpu")
    assert read == layer
    assert layer_from_tags({"runyard/config": json.dumps(config)}, "the run") == read


IN_TAGS: list[tuple[dict[str, str], RequirementLayer]] = [
    ({}, EMPTY_LAYER),
    ({"team": "x", "dagster/priority": "3", "runyardish": "x", "runyard": "x"}, EMPTY_LAYER),
    ({"runyard/cluster": "gpu"}, RequirementLayer(cluster="gpu")),
    ({"runyard/node": " node-7 "}, RequirementLayer(node="node-7")),
    ({"runyard/labels": "zone=b, q = x=y"}, rules("q=x=y", "zone=b")),
    ({"runyard/labels": '{"zone": "b"}'}, rules("zone=b")),
    ({"runyard/labels": '["zone=b", "!spot"]'}, rules("!spot", "zone=b")),
    ({"runyard/labels": "gpu"}, rules("gpu")),
    ({"runyard/prefer": '{"fast": 3}'}, prefers(fast=3)),
    ({"runyard/cpu": "0.5", "runyard/memory": "2Gi"}, amounts(cpu=500, memory=2 * GI)),
    ({"runyard/resources": '{"license": 1}'}, amounts(license=1)),
    ({"runyard/grace": "0"}, RequirementLayer(grace=0.0)),
    ({"runyard/grace": " 1e1 "}, RequirementLayer(grace=10.0)),
    ({"runyard/grace": "5m"}, RequirementLayer(grace=300.0)),
    ({"runyard/on_disconnect": "keep"}, RequirementLayer(on_disconnect=Keep())),
    ({"runyard/on_disconnect": "stop_after=300"}, RequirementLayer(on_disconnect=StopAfter(300))),
    ({"runyard/on_disconnect": "stop_after: 5m"}, RequirementLayer(on_disconnect=StopAfter(300))),
    ({"runyard/on_disconnect": " stop_after = 1h30m "}, RequirementLayer(on_disconnect=StopAfter(5400))),
    ({"runyard/on_disconnect": "stop_after=90.5s"}, RequirementLayer(on_disconnect=StopAfter(90.5))),
    ({"runyard/placed_node": "node-7", "runyard/placed_cluster": "main"}, EMPTY_LAYER),
    ({"runyard/outcome": "oom_killed", "runyard/exit_cause": "!?"}, EMPTY_LAYER),
]


@pytest.mark.parametrize(("tags", "layer"), IN_TAGS)
def test_tags_become_a_layer(tags: dict[str, str], layer: RequirementLayer) -> None:
    assert layer_from_tags(tags, "the run") == layer


def test_a_tag_overrides_the_same_key_of_the_dictionary() -> None:
    config = {"cluster": "a", "memory": "2Gi", "cpu": 4, "labels": {"zone": "a", "disk": "ssd"}}
    tags = {
        "runyard/memory": "8Gi",
        "runyard/labels": "zone=b",
        "runyard/config": json.dumps(config),
    }
    layer = layer_from_tags(tags, "the run")
    assert (layer.cluster, dict(layer.resources)) == ("a", {"memory": 8 * GI, "cpu": 4000})
    assert set(layer.labels) == {label_is("zone", "b"), label_is("disk", "ssd")}


INVALID: list[tuple[str, str, str]] = [
    ("cluster", " ", "is empty; give it a value, or leave it out"),
    ("cluster", "a/b", "'a/b' is not a name; write letters"),
    ("node", "", "is empty; give it a value"),
    ("driver", "docker!", "'docker!' is not a name"),
    ("image", "two words", "'two words' is not an image"),
    ("cpu", "many", "'many' is not a number of cores; write for example 2"),
    ("memory", "16Q", "'16Q' is not an amount of memory; write for example 512M or 16Gi"),
    ("gpu", "half", "'half' is not a whole number; write for example 1"),
    ("grace", "soon", "'soon' is not a span of time; write seconds as 90"),
    ("grace", "-1", "'-1' is not a span of time"),
    ("grace", "nan", "'nan' is not a span of time"),
    ("grace", "inf", "'inf' is not a span of time"),
    ("grace", "1e30", "'1e30' is not a span of time"),
    ("max_queue_time", "9999d", "'9999d' is not a span of time"),
    ("on_disconnect", "", "'' is neither keep nor a time; write keep, or a time as in stop_after=5m"),
    ("on_disconnect", "stop", "'stop' is neither keep nor a time"),
    ("on_disconnect", "keep=5m", "'keep=5m' is neither"),
    ("on_disconnect", "stop_after", "'stop_after' is neither"),
    ("on_disconnect", "stop_after=soon", "'stop_after=soon' is neither"),
    ("on_disconnect", "stop_after=0", "'stop_after=0' is neither"),
    ("on_disconnect", "stop_after=-5m", "'stop_after=-5m' is neither"),
    ("on_disconnect", "stop_after=9999d", "'stop_after=9999d' is neither"),
    ("labels", "", "has the part ''"),
    ("labels", "=a", "has the part '=a'"),
    ("labels", "zone=a,", "has the part ''"),
    ("labels", "zone=a b", "has the part 'zone=a b'"),
    ("labels", "zone=a,zone=b", "has both zone=a and zone=b; drop one"),
    ("labels", '{"zone": 1}', "has 1 under 'zone', which is not text; write zone=a"),
    ("labels", '{"zone": []}', "has [] under 'zone', which is not text"),
    ("labels", '{"zone!": "a"}', "has the key 'zone!', which is not a label"),
    ("labels", '{"zone"', "is not JSON"),
    ("labels", "[1]", "has the part 1, which is not text"),
    ("prefer", '{"zone=a": "much"}', "gives 'zone=a' the weight 'much'; write a whole number from 1 to 1000"),
    ("prefer", '{"zone=a": 0}', "gives 'zone=a' the weight 0"),
    ("tolerations", "a b", "has the part 'a b'; write taints as gpu or team=x"),
    ("resources", "license", "'license' names no resources; write for example"),
    ("resources", '{"cpu": 1}', "names cpu, which is a separate field; write it beside resources"),
    ("resources", '{"slots": 2}', "names slots; leave them out"),
    ("resources", '{"license": "some"}', "has an invalid amount of license: 'some' is not a whole number"),
    ("config", "memory=2Gi", "'memory=2Gi' is not a JSON object"),
    ("config", '{"memory": ', "is not JSON"),
    ("config", "[1]", "'[1]' is not a JSON object"),
]


@pytest.mark.parametrize(("key", "text", "problem"), INVALID)
def test_an_invalid_tag_is_named_with_its_owner_and_the_remedy(key: str, text: str, problem: str) -> None:
    with pytest.raises(InvalidField) as caught:
        layer_from_tags({f"runyard/{key}": text}, "op train")
    field, _, rest = str(caught.value).partition(": ")
    assert field == f"tag runyard/{key} of op train"
    assert problem in rest


UNKNOWN = [
    (
        "runyard/memroy",
        "tag runyard/memroy of the run: is not a tag of Runyard; did you mean runyard/memory?",
    ),
    ("runyard/gpus", "tag runyard/gpus of the run: is not a tag of Runyard; did you mean runyard/gpu?"),
    (
        "runyard/label",
        "tag runyard/label of the run: is not a tag of Runyard; did you mean runyard/labels?",
    ),
    ("runyard/", "tag runyard/ of the run: is not a tag of Runyard; "),
    ("runyard/zone", "tag runyard/zone of the run: is not a tag of Runyard; known are runyard/config, "),
]


@pytest.mark.parametrize(("tag", "message"), UNKNOWN)
def test_an_unknown_tag_is_refused_with_a_suggestion(tag: str, message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        layer_from_tags({tag: "x"}, "the run")
    assert str(caught.value).startswith(message)


IN_DICTIONARIES: list[tuple[dict[Any, Any], str]] = [
    ({"memroy": 1}, "rule gpu: has the unknown key 'memroy'; did you mean memory?"),
    ({"zone": "a"}, "rule gpu: has the unknown key 'zone'; known are cluster, node, labels"),
    ({7: "a"}, "rule gpu: has the unknown key 7; known are"),
    ({"cluster": None}, "cluster of rule gpu: None is not a name; write it as text"),
    ({"node": 7}, "node of rule gpu: 7 is not a name; write it as text"),
    ({"cpu": True}, "cpu of rule gpu: True is not a number of cores"),
    ({"labels": {"spot": True}}, "labels of rule gpu: has True under 'spot', which is not text"),
    ({"labels": 5}, "labels of rule gpu: 5 is neither text nor a list"),
    ({"grace": -1}, "grace of rule gpu: -1 is not a span of time"),
    ({"grace": 10**400}, "grace of rule gpu: "),
    ({"grace": [1]}, "grace of rule gpu: [1] is not a span of time"),
    ({"on_disconnect": {"stop_after": "never"}}, "on_disconnect of rule gpu: "),
    ({"resources": ["license"]}, "resources of rule gpu: ['license'] names no resources"),
]


@pytest.mark.parametrize(("config", "message"), IN_DICTIONARIES)
def test_an_invalid_dictionary_is_named(config: dict[Any, Any], message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        layer_from_config(config, "rule gpu")
    assert str(caught.value).startswith(message)


def test_a_key_of_the_tag_config_is_named_with_the_tag_and_its_owner() -> None:
    with pytest.raises(
        InvalidField, match=r"^memory of tag runyard/config of op train: 'x' is not an amount"
    ):
        layer_from_tags({"runyard/config": '{"memory": "x"}'}, "op train")


KEYS = st.sampled_from([f"runyard/{key}" for key in ("config", "placed_node", *SCHEMA)])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SCHEMA, "zone", "a b", "stop_after"]), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXTS = st.text(max_size=20) | st.text(alphabet='azAZ019=|!<>,.*-+eE:{}[]" µGim', max_size=20)


def refusal_of(read: Callable[[], RequirementLayer]) -> str:
    """The error; empty if there is none."""
    try:
        assert isinstance(read(), RequirementLayer)
    except InvalidField as refusal:
        return str(refusal)
    return ""


@given(st.dictionaries(KEYS | st.text(max_size=12), TEXTS | ANY_JSON.map(json.dumps), max_size=4))
@example({"runyard/config": "[" * 100_000})
@example({"runyard/labels": "[" * 100_000})
@example({"runyard/config": '{"grace": ' + "9" * 5_000 + "}"})
@example({"runyard/grace": "9" * 400 + "d"})
@example({"runyard/cpu": "9" * 5_000})
def test_any_tags_are_parsed_or_refused(tags: dict[str, str]) -> None:
    refusal = refusal_of(lambda: layer_from_tags(tags, "the run"))
    assert not refusal or "runyard/" in refusal
    assert len(refusal) < 1_000


@given(
    st.dictionaries(st.sampled_from(list(SCHEMA)) | st.text(max_size=5) | st.integers(), ANY_JSON, max_size=3)
)
def test_any_dictionary_is_parsed_or_refused(config: dict[Any, Any]) -> None:
    refusal = refusal_of(lambda: layer_from_config(config, "rule gpu"))
    assert not refusal or "rule gpu" in refusal
    assert len(refusal) < 1_000


def test_isolation_is_one_of_three_words() -> None:
    assert layer_from_tags({"runyard/isolation": "require"}, "the run").isolation == "require"
    with pytest.raises(
        InvalidField, match="'always' is not an isolation mode; write require or prefer or none"
    ):
        layer_from_tags({"runyard/isolation": "always"}, "the run")
