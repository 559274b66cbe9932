"""Routing files with the keys of Runyard 0.1."""

from pathlib import Path

import pytest

from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.core.scheduling.config import SchedulingConfig
from runyard.coordinator.routing_config.deprecated_keys import DEPRECATED_KEYS
from runyard.coordinator.routing_config.reading import read_routing

OLD = """\
no_rule: queue
no_node: queue
most_places: 5
rules:
- name: a
  clusters: [x, y]
  policy: spread
- name: b
  match: {job: b}
  clusters: [x, y]
  policy: least_loaded
quotas:
  shop: {least: {slots: 1}, most: {slots: 2}}
"""

NEW = OLD
for key in DEPRECATED_KEYS:
    NEW = NEW.replace(f"{key.old}:", f"{key.new}:")


def config_of(text: str) -> SchedulingConfig:
    return read_routing(text.encode()).config


def warnings_of(text: str) -> list[str]:
    return [str(warning) for warning in read_routing(text.encode()).warnings]


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidYamlFile) as refused:
        read_routing(text.encode())
    return [str(problem) for problem in refused.value.problems]


def test_old_keys_mean_the_same_as_the_new_ones() -> None:
    assert NEW != OLD
    assert config_of(OLD) == config_of(NEW)


def test_each_old_key_gives_one_warning_with_its_line_and_the_new_key() -> None:
    deprecations = [text for text in warnings_of(OLD) if "is deprecated" in text]
    assert deprecations == [
        "line 1, no_rule: is deprecated; rename it to on_no_matching_rule",
        "line 2, no_node: is deprecated; rename it to on_no_eligible_node",
        "line 3, most_places: is deprecated; rename it to max_placement_attempts",
        "line 7, rules[0].policy: is deprecated; rename it to cluster_order (also on line 11)",
        "line 13, quotas.shop.least: is deprecated; rename it to guaranteed",
        "line 13, quotas.shop.most: is deprecated; rename it to limit",
    ]


def test_new_keys_give_no_deprecation_warning() -> None:
    assert not [text for text in warnings_of(NEW) if "is deprecated" in text]


def test_many_uses_of_an_old_key_are_cut_short() -> None:
    rules = "".join(
        f"- {{name: r{n}, match: {{job: j{n}}}, clusters: [a], policy: spread}}\n" for n in range(9)
    )
    (warning,) = warnings_of(f"rules:\n{rules}")
    assert warning.endswith("rename it to cluster_order (also on line 3, 4, 5, 6, 7, ...)")


BOTH = {
    "no_rule: fail\non_no_matching_rule: fail": (
        "line 1, no_rule: is the old name of on_no_matching_rule, which is on line 2; "
        "keep on_no_matching_rule alone"
    ),
    "on_no_eligible_node: fail\nno_node: fail": (
        "line 2, no_node: is the old name of on_no_eligible_node, which is on line 1; "
        "keep on_no_eligible_node alone"
    ),
    "rules:\n- name: a\n  clusters: [x]\n  policy: spread\n  cluster_order: spread": (
        "line 4, rules[0].policy: is the old name of cluster_order, which is on line 5; "
        "keep cluster_order alone"
    ),
    "quotas:\n  a:\n    most: {slots: 1}\n    limit: {slots: 1}": (
        "line 3, quotas.a.most: is the old name of limit, which is on line 4; keep limit alone"
    ),
}


@pytest.mark.parametrize("text", BOTH)
def test_both_names_of_a_key_are_refused_with_both_lines(text: str) -> None:
    assert problems_of(text) == [BOTH[text]]


def test_a_wrong_value_is_reported_under_the_key_in_the_file() -> None:
    assert problems_of("placement: spread\nno_rule: drop") == [
        "line 2, no_rule: 'drop' is none of anywhere, queue, fail"
    ]
    assert problems_of("quotas:\n  a:\n    least: {gpu: 3}\n    limit: {gpu: 2}") == [
        "line 3, quotas.a.least.gpu: 3 is more than limit.gpu, 2"
    ]


@pytest.mark.parametrize("text", ["rules: 3", "quotas: [a]", "rules: [[policy]]", "quotas: {a: most}", "3"])
def test_files_of_another_form_are_refused_as_before(text: str) -> None:
    assert problems_of(text)


def test_the_shipped_example_has_no_old_key() -> None:
    example = Path(__file__).parents[3] / "deploy" / "routing.yaml"
    assert read_routing(example.read_bytes()).warnings == ()
