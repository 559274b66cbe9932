"""Any routing file gives a configuration or an error with a reason."""

import yaml
from coordinator.routing.files import EVERYTHING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.coordinator.core.scheduling.config import SchedulingConfig
from runyard.coordinator.routing_config.reading import read_routing

LONGEST_MESSAGE = 600
"""Characters; messages cut long values short."""

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome_of(data: bytes) -> SchedulingConfig | list[str]:
    """The configuration, or the problems."""
    try:
        return read_routing(data).config
    except InvalidYamlFile as refused:
        return [str(each) for each in refused.problems]


def assert_read_or_refused(data: bytes) -> None:
    outcome = outcome_of(data)
    if isinstance(outcome, list):
        assert outcome
        assert all(0 < len(each) <= LONGEST_MESSAGE for each in outcome)


@given(st.binary(max_size=200))
@patiently
def test_any_bytes(data: bytes) -> None:
    assert_read_or_refused(data)


@given(st.text(st.sampled_from("ab1: -?[]{},&*!|>'\"%@`#\n\t~.<="), max_size=60))
@patiently
def test_any_text_of_yaml_syntax(text: str) -> None:
    assert_read_or_refused(text.encode())


@given(st.integers(0, len(EVERYTHING)), st.integers(0, 40), st.text(max_size=4))
@patiently
def test_any_typing_mistake(place: int, gone: int, typed: str) -> None:
    slipped = EVERYTHING[:place] + typed + EVERYTHING[place + gone :]
    assert_read_or_refused(slipped.encode(errors="surrogatepass"))


WORDS = sorted({word for word in EVERYTHING.replace("{", " ").split() if word.endswith(":")})
KEYS = st.sampled_from([word.rstrip(":") for word in WORDS])
SCALARS = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "a",
        "*",
        "1Gi",
        "2m",
        "a=b",
        "x" * 999,
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
RULES = st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@patiently
def test_any_value_under_any_key(document: dict[str, object]) -> None:
    assert_read_or_refused(yaml.safe_dump(document).encode())


@given(RULES)
@patiently
def test_any_value_under_any_key_of_a_rule(rules: list[dict[str, object]]) -> None:
    named = [{"name": f"rule-{place}", **rule} for place, rule in enumerate(rules)]
    assert_read_or_refused(yaml.safe_dump({"rules": named}).encode())
