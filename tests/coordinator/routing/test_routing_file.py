"""The routing file: its meaning, its errors with line, key and remedy, and its warnings."""

from pathlib import Path

import pytest
from coordinator.routing.files import EVERYTHING

from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.core.requirements.labels import label_is
from runyard.coordinator.core.requirements.requirements import RequirementLayer
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
from runyard.coordinator.routing_config.reading import LIMITS, Routing, load_routing, read_routing

EXAMPLE = Path(__file__).parents[3] / "deploy" / "routing.yaml"

GIB = 1024**3


def read(text: str) -> Routing:
    return read_routing(text.encode())


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidYamlFile) as refused:
        read(text)
    return str(refused.value).splitlines()


def warned(text: str) -> list[str]:
    return [str(each) for each in read(text).warnings]


# What it means


def test_every_key_arrives_in_the_configuration() -> None:
    gpu = Rule(
        "gpu",
        Match(
            ("train_*",),
            ("ml", "vision"),
            ("*",),
            ("prod",),
            (("dagster/backfill", ("a", "b")), ("team", ("vision*",))),
        ),
        (WeightedCluster("gpu-a", 3), WeightedCluster("gpu-b", 1)),
        Order.WEIGHTED,
        120.0,
        RequirementLayer(labels=(label_is("gpu", "a100"),)),
    )
    assert read(EVERYTHING).config == SchedulingConfig(
        defaults=RequirementLayer(resources=Resources.of({"cpu": 1000, "memory": GIB})),
        strategy=Strategy.SPREAD,
        rules=(gpu, Rule("rest", Match(), (WeightedCluster("rack1"), WeightedCluster("rack2")))),
        default_cluster="rack1",
        on_no_matching_rule=NoRuleAction.QUEUE,
        on_no_eligible_node=NoNodeAction.QUEUE,
        queue=QueueConfig("dagster/tenant", 300.0, 100, 50, 30.0, 3600.0),
        quotas={
            "analytics": Quota(
                guaranteed=Resources.of({"slots": 2}),
                limit=Resources.of({"slots": 10, "gpu": 2, "cpu": 1500, "memory": 64 * GIB}),
            )
        },
    )


def test_file_without_rules_equals_no_file() -> None:
    assert read("rules: []").config == DEFAULT_CONFIG
    assert read("{}").config == DEFAULT_CONFIG


def test_shipped_example_has_no_warning() -> None:
    routing = load_routing(EXAMPLE)
    assert routing.warnings == ()
    assert [rule.name for rule in routing.config.rules] == ["gpu", "canary", "backfills"]


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ("share_by: code_location", QueueConfig(share_by="")),
        ("age_step: never", QueueConfig(age_step=None)),
        ("age_step: 90", QueueConfig(age_step=90.0)),
        ("reserve_after: 0", QueueConfig(reserve_after=0.0)),
    ],
)
def test_order_of_the_queue_can_be_changed(queue: str, expected: QueueConfig) -> None:
    assert read(f"queue: {{{queue}}}").config.queue == expected


def test_anchors_may_name_a_value_again() -> None:
    config = read("rules:\n- {name: a, clusters: &all [x, y]}\n- {name: b, clusters: *all}").config
    assert config.rules[0].clusters == config.rules[1].clusters


def test_byte_order_mark_is_passed_over() -> None:
    assert read_routing(b"\xef\xbb\xbfdefault_cluster: a").config.default_cluster == "a"


def test_clusters_that_may_be_absent_are_named_with_their_first_place() -> None:
    said = {name: str(each) for name, each in read(EVERYTHING).if_absent.items()}
    assert said.keys() == {"gpu-a", "gpu-b", "rack1", "rack2"}
    assert said["gpu-b"].startswith("line 14, rules[0].clusters: no node is in cluster gpu-b;")
    assert said["rack1"].startswith("line 19, rules[1].clusters: ")


# Errors


def rule(text: str) -> str:
    return f"rules:\n- name: a\n  {text}"


REFUSED = {
    "rulez: []": "line 1, rulez: there is no such key; did you mean rules?",
    "x: 1": "line 1, x: there is no such key; known are defaults, placement, default_cluster,",
    "placement: best": "line 1, placement: 'best' is none of binpack, spread",
    "placement: [binpack]": "line 1, placement: ['binpack'] is none of binpack, spread",
    "on_no_matching_rule: drop": "line 1, on_no_matching_rule: 'drop' is none of anywhere, queue, fail",
    "on_no_eligible_node: anywhere": "line 1, on_no_eligible_node: 'anywhere' is none of fail, queue",
    "default_cluster: 'a b'": "line 1, default_cluster: 'a b' must be letters, digits,",
    "default_cluster: no": "line 1, default_cluster: False is not text; put it in quotes",
    "default_cluster:": "line 1, default_cluster: None is not text",
    "defaults: 3": "line 1, defaults: 3 is not a mapping",
    "defaults: {memroy: 1Gi}": "line 1, defaults.memroy: has the unknown key 'memroy'; did you mean memory?",
    "defaults:\n  cpu: 1\n  memory: 1Xi": "line 3, defaults.memory: '1Xi' is not an amount of memory",
    "defaults: {cluster: a}": "line 1, defaults.cluster: write default_cluster instead",
    "defaults: {node: a}": "line 1, defaults.node: would send every run to one node",
    "rules: {a: b}": "line 1, rules: {'a': 'b'} is not a list; write its items below it, each after a dash",
    "rules: [a]": "line 1, rules[0]: 'a' is not a mapping",
    "rules:\n- match: {}": "line 2, rules[0]: has no name; give one",
    "rules:\n- {name: a}\n- {name: b}\n- name: a": "line 4, rules[2].name: 'a' is the name of rules[0] too",
    "rules:\n- name: ''": "line 2, rules[0].name: '' must be letters",
    "rules:\n- name: 7": "line 2, rules[0].name: 7 is not text; put it in quotes",
    rule("mtach: {}"): "line 3, rules[0].mtach: there is no such key; did you mean match?",
    rule("match: train"): "line 3, rules[0].match: 'train' is not a mapping",
    rule("match:\n    jobs: x"): "line 4, rules[0].match.jobs: there is no such key; did you mean job?",
    rule("match: {job: ''}"): "line 3, rules[0].match.job: a pattern has 1 to 256 characters",
    rule("match: {job: []}"): "line 3, rules[0].match.job: is an empty list; leave it out",
    rule("match: {job: [a, 3]}"): "line 3, rules[0].match.job: 3 is not text; put it in quotes",
    rule(f"match: {{job: {'a' * 257}}}"): "line 3, rules[0].match.job: a pattern has 1 to 256",
    rule("match: {tags: [a]}"): "line 3, rules[0].match.tags: ['a'] is not a mapping; write {team: 'data-*'}",
    rule("match: {tags: {a: 2026-11-23}}"): (
        "line 3, rules[0].match.tags.a: '2026-11-23' is neither text nor a number; put it in quotes"
    ),
    rule("match: {tags: {a: yes}}"): "line 3, rules[0].match.tags: True is not text; put it in quotes",
    rule("match: {tags: {7: a}}"): "line 3, rules[0].match.tags: has a key that is not text",
    rule("clusters: a"): "line 3, rules[0].clusters: 'a' is not a list; write [gpu-a, gpu-b], or",
    rule("clusters: []"): "line 3, rules[0].clusters: is empty; leave it out if any cluster will do",
    rule("clusters: [a, b, a]"): "line 3, rules[0].clusters: names a cluster twice",
    rule("clusters: [a/b]"): "line 3, rules[0].clusters: 'a/b' must be letters",
    rule(
        "clusters: {a: 0}"
    ): "line 3, rules[0].clusters: the weight 0 is not a whole number from 1 to 1000000",
    rule("clusters: {a: 1.5}"): "line 3, rules[0].clusters: the weight 1.5 is not a whole number",
    rule("clusters: {a: 1000001}"): "line 3, rules[0].clusters: the weight 1000001 is not a whole number",
    rule(
        "clusters: {a: 2}"
    ): "line 3, rules[0].clusters: has weights, which only cluster_order: weighted uses",
    rule("clusters: [a]\n  cluster_order: fristfit"): (
        "line 4, rules[0].cluster_order: 'fristfit' is none of first_fit, least_loaded, weighted, spread"
    ),
    rule(
        "cluster_order: spread"
    ): "line 3, rules[0].cluster_order: chooses among clusters, and the rule has none",
    rule(
        "spill_after: 5s"
    ): "line 3, rules[0].spill_after: opens one cluster after another, and the rule has",
    rule("clusters: [a, b]\n  cluster_order: spread\n  spill_after: 5s"): (
        "line 5, rules[0].spill_after: spread compares all clusters at once; leave it out, or use"
    ),
    rule(
        "clusters: [a, b]\n  cluster_order: least_loaded\n  spill_after: 5s"
    ): "spill_after: least_loaded compares",
    rule(
        "spill_after: soon"
    ): "line 3, rules[0].spill_after: 'soon' is not a span of time; write seconds as 90",
    rule("spill_after: -1"): "line 3, rules[0].spill_after: -1 is not between 0 and 3650 days",
    rule("spill_after: .nan"): "line 3, rules[0].spill_after: nan is not between 0 and",
    rule("spill_after: .inf"): "line 3, rules[0].spill_after: inf is not between 0 and",
    rule("spill_after: 4000d"): "line 3, rules[0].spill_after: '4000d' is not between 0 and",
    rule("spill_after: true"): "line 3, rules[0].spill_after: True is not a span of time",
    rule("set: {cluster: a}"): "line 3, rules[0].set.cluster: write clusters instead, beside set",
    rule("set: {labels: 'a b'}"): "line 3, rules[0].set.labels: ",
    rule("set: {cpu: x}"): "line 3, rules[0].set.cpu: 'x' is not a number of cores",
    rule("set: [cpu]"): "line 3, rules[0].set: ['cpu'] is not a mapping; write {cpu: 2, memory: 4Gi}",
    "queue: {limti: 3}": "line 1, queue.limti: there is no such key; did you mean limit?",
    "queue: {limit: 0}": "line 1, queue.limit: 0 is less than 1",
    "queue: {limit: many}": "line 1, queue.limit: 'many' is not a whole number",
    "queue: {limit: 1.0}": "line 1, queue.limit: 1.0 is not a whole number",
    "queue: {share_by: team}": "line 1, queue.share_by: 'team' is neither code_location nor a tag",
    "queue: {share_by: {tag: ''}}": "line 1, queue.share_by: the name of a tag has 1 to 256",
    "queue: {share_by: {tag: a, b: c}}": "line 1, queue.share_by: {'tag': 'a', 'b': 'c'} is neither",
    "queue: {age_step: 0}": "line 1, queue.age_step: 0 must be more than 0",
    "queue: {reservation: 0s}": "line 1, queue.reservation: '0s' must be more than 0",
    "quotas: [a]": "line 1, quotas: ['a'] is not a mapping",
    "quotas: {a: {max: {}}}": "line 1, quotas.a.max: there is no such key; known are guaranteed, limit",
    "quotas: {a: {limit: 3}}": "line 1, quotas.a.limit: 3 is not a mapping; write {slots: 10, memory: 64Gi}",
    "quotas: {a: {limit: {slots: x}}}": "line 1, quotas.a.limit: slots: 'x' is not a whole number",
    "quotas: {a: {limit: {slots: 0}}}": "line 1, quotas.a.limit: slots: 0 is not a limit; leave it out",
    "quotas: {a: {limit: {'a b': 1}}}": "line 1, quotas.a.limit: 'a b' must be letters",
    "quotas:\n  a:\n    guaranteed: {gpu: 3}\n    limit: {gpu: 2}": (
        "line 3, quotas.a.guaranteed.gpu: 3 is more than limit.gpu, 2"
    ),
    "": "is empty; write 'rules: []' if there are to be no rules",
    "# only a comment": "is empty",
    "3": "3 is not a mapping",
    "[]": "[] is not a mapping",
    "a: 1\na: 2": "line 2, a: is on line 1 already; keep one of them",
    rule("match: {}\n  match: {}"): "line 4, rules[0].match: is on line 3 already; keep one of them",
    "a: [": "line 1: is not valid YAML: ",
    "a: b\n c: d": "line 2: is not valid YAML: mapping values are not allowed here",
    "a: *b": "line 1: is not valid YAML: found undefined alias 'b'",
    "a: 1\n---\nb: 1": "line 2: is not valid YAML: expected a single document",
    "a: \x00": "is not valid YAML: unacceptable character",
    "a: !!python/name:os.system x": "line 1, a: 'x' is neither text nor a number",
    "a: !!int x": "line 1, a: 'x' is not what its tag says",
    "a: !!bool x": "line 1, a: 'x' is not what its tag says",
    "a: " + "9" * 5000: "is not what its tag says",
    "? [a]\n: b": "line 1: has a key that is not text; put it in quotes",
    "<<: {rules: []}": "line 1: merge keys (<<) are not supported",
    "a: &a [*a]": "aliases make more than 50000 values of this; use fewer",
    "a: " + "[" * 10_000: "is not valid YAML: is nested deeper than 20 levels",
    "rules:" + "\n- {name: a}" * 1001: "line 1, rules: has 1001 items; 1000 at most",
}


@pytest.mark.parametrize("text", REFUSED, ids=[text[:60] for text in REFUSED])
def test_problem_names_its_place_and_the_remedy(text: str) -> None:
    assert any(REFUSED[text] in each for each in problems(text)), problems(text)


def test_all_problems_are_reported_at_once() -> None:
    text = "x: 1\nplacement: best\nqueue: {limit: 0}"
    assert [each.partition(":")[0] for each in problems(text)] == [
        "line 2, placement",
        "line 3, queue.limit",
        "line 1, x",
    ]


def test_only_the_first_50_problems_are_listed_and_the_rest_are_counted() -> None:
    reported = problems("".join(f"key{number}: 1\n" for number in range(60)))
    assert len(reported) == 51
    assert reported[-1] == "and 10 more"


def test_anchors_that_multiply_are_stopped_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases make more than" in problems("\n".join(lines))[0]


def test_text_that_is_not_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidYamlFile, match=r"^line 2: is not UTF-8; save it as that$"):
        read_routing(b"placement: binpack\ndefault_cluster: \xff")


def test_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "routing.yaml"
    with file.open("wb") as sink:
        sink.truncate(LIMITS.size * 1000)
    with pytest.raises(InvalidYamlFile, match=f"routing.yaml: has more than {LIMITS.size} bytes"):
        load_routing(file)


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InvalidYamlFile, match=r"cannot be read \((No such file or|Is a) directory\)"
    ) as refused:
        load_routing(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))


# Warnings

WARNED = {
    "rules: [{name: a}, {name: b, match: {job: x}}]": (
        "line 1, rules[1]: no run reaches rule b: the earlier rule a matches all of its runs; put b before a"
    ),
    rule(
        "clusters: [a]\n  spill_after: 5s"
    ): "line 4, rules[0].spill_after: has no effect, since there is no other cluster",
    "default_cluster: a\non_no_matching_rule: queue": (
        "line 2, on_no_matching_rule: has no effect, since runs without a matching rule"
    ),
    "on_no_matching_rule: fail": "line 1, on_no_matching_rule: without rules no run is placed",
    "quotas: {a: {}}": "line 1, quotas.a: has no effect",
}


@pytest.mark.parametrize("text", WARNED)
def test_a_probable_mistake_is_a_warning_and_the_file_is_used(text: str) -> None:
    (warning,) = warned(text)
    assert warning.startswith(WARNED[text])


def test_a_sound_file_has_no_warning() -> None:
    assert warned("rules: [{name: a, match: {job: x}}, {name: b}]\nquotas: {a: {limit: {slots: 1}}}") == []
