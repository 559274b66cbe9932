"""The owner's policy and keys as the agent's settings have them, and what docs/trust.md shows."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent.launches import SIGNER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.agent.__main__ import main
from runyard.agent.admission.trust import environment
from runyard.agent.admission.trust.policy import (
    Allowed,
    AsProcess,
    Refused,
    RequestedAccess,
    decide,
    policy_of,
)
from runyard.agent.admission.trust.signatures import COORDINATORS
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import Allow
from runyard.agent.config.policy import PolicySettings, Profile
from runyard.common.security.signing import public_key_of
from runyard.common.service.settings import SettingsError
from runyard.common.service.settings_sources import load_settings
from runyard.launcher.config import SCHEMA
from runyard.v1 import placement_pb2, run_pb2

PAGE = (Path(__file__).parents[3] / "docs" / "trust.md").read_text()


def load(**values: Any) -> AgentSettings:
    """The settings, as they come from a file."""
    return load_settings(AgentSettings, file=None, prefix="NONE", flags=values)


def block(name: str) -> Any:
    """The YAML block of the page that is marked with this name."""
    found = re.search(rf"^<!-- {re.escape(name)} -->\n```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no {name} in the page"
    return yaml.safe_load(found[1])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"policy": {"profils": []}}, "policy.profils: there is no such setting"),
        ({"policy": {"profiles": [{}]}}, "policy.profiles[0].name: is required"),
        ({"policy": {"profiles": [{"name": "a b"}]}}, "'a b' must be letters"),
        ({"policy": {"profiles": [{"name": "a"}, {"name": "a"}]}}, "there are two profiles 'a'"),
        ({"policy": {"profiles": [{"name": "a", "interpreters": ["python3"]}]}}, "must be an absolute path"),
        ({"policy": {"profiles": [{"name": "a", "working_directories": ["/a/../b"]}]}}, "without '..'"),
        ({"policy": {"profiles": [{"name": "a", "memory": "much"}]}}, "write for example 512M or 16Gi"),
        ({"policy": {"profiles": [{"name": "a", "containers": {"image": "x"}}]}}, "containers.image"),
        ({"policy": {"profiles": [{"name": "a"}]}, "docker": {"allow": {}}}, "docker: allow: has no effect"),
        ({"docker": {"volumes": ["/var/run/docker.sock:/s"]}}, "set policy.allow_engine_socket: true"),
        ({"docker": {"container_kwargs": {"volumes": {"/run": {"bind": "/r"}}}}}, "/run holds the socket"),
        ({"signatures": "require"}, "signatures: require needs signing_keys; `runyard signing-key create`"),
        ({"signatures": "maybe", "signing_keys": ["x"]}, "signatures"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_with_the_remedy(values: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(problem)):
        load(**values)


def test_off_may_be_written_without_quotes() -> None:
    assert load(**yaml.safe_load("signatures: off")).signatures == "off"


def test_an_owner_may_give_containers_the_engine_if_that_is_what_is_meant() -> None:
    docker = {"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}
    assert load(policy={"allow_engine_socket": True}, docker=docker).docker is not None


def test_a_key_that_cannot_be_read_is_told_by_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(f"signing_keys: [{tmp_path}/none.pub]\nsignatures: warn")
    assert main(["--config", str(config), "--check"]) == 2
    assert f"signing_keys: {tmp_path}/none.pub: cannot be read" in capsys.readouterr().err


def test_an_agent_whose_keys_cannot_be_read_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "launch-signing.pub"
    key.write_text(str(SIGNER.public))
    key.chmod(0o666)
    config = tmp_path / "agent.yaml"
    config.write_text(f"signing_keys: [{key}]\nsignatures: require\nstate_directory: {tmp_path}/state")
    assert main(["--config", str(config)]) == 1
    assert f"{key} has mode 0666, too open for a key: chmod go-w {key}" in capsys.readouterr().err


NAMES = st.sampled_from(
    [
        *PolicySettings.model_fields,
        *Profile.model_fields,
        *Allow.model_fields,
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
ANYTHING = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), part, max_size=4),
    max_leaves=12,
)
PROFILES = st.lists(
    st.dictionaries(NAMES, ANYTHING, max_size=4).map(lambda profile: {"name": "a", **profile}), max_size=2
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries({}, optional={"profiles": PROFILES | ANYTHING, "allow_root": ANYTHING}) | ANYTHING
)
def test_no_policy_text_crashes(policy: Any) -> None:
    try:
        loaded = load(policy=policy)
    except SettingsError:
        return
    worker = AsProcess("/usr/bin/python3", "/", "etl", is_root=False, is_limited=True)
    decide(policy_of(loaded.policy, loaded.docker), RequestedAccess("shop", "process", ("A",), 0, 0, worker))


# What the page shows is true


def shown_policy() -> Any:
    shown = load(**block("agent.yaml"))
    return policy_of(shown.policy, shown.docker)


def test_the_policy_on_the_page_has_every_key_and_refuses_as_shown() -> None:
    shop, reports = block("agent.yaml")["policy"]["profiles"]
    assert shop.keys() | reports.keys() == Profile.model_fields.keys()
    worker = AsProcess("/usr/bin/python3", "/srv/shop", "etl", is_root=False, is_limited=True)
    asked = RequestedAccess("shop", "process", ("DAGSTER_RUN_JOB_NAME", "PYTHONPATH"), 1 << 30, 1000, worker)
    decision = decide(shown_policy(), asked)
    assert isinstance(decision, Refused)
    assert f"    {decision}\n" in PAGE
    fits = AsProcess("/opt/shop/venv/bin/python", "/srv/shop", "etl", is_root=False, is_limited=True)
    allowed = decide(
        shown_policy(), RequestedAccess("shop-eu", "process", asked.environment, 1 << 30, 1000, fits)
    )
    assert allowed == Allowed("shop")


def test_the_page_names_every_key_of_a_profile() -> None:
    table = PAGE[PAGE.index("| key of a profile |") : PAGE.index("Patterns:")]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", table, re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"\w+", row)}
    assert named == Profile.model_fields.keys() - {"name"}


def test_the_variables_that_the_page_names_are_dangerous() -> None:
    section = PAGE[PAGE.index("### Dangerous variables") : PAGE.index("## Signed launches")]
    sentence = section[: section.index("and more")]
    names = re.findall(r"`([A-Z_*]+)`", sentence)
    harmless = {"PYTHONUNBUFFERED", "PYTHONHASHSEED"}
    assert len(names) > 10
    for name in names:
        assert environment.is_dangerous(name.replace("*", "X")) == (name not in harmless), name


def test_the_settings_of_signatures_on_the_page_are_understood() -> None:
    agent = load(**block("signing agent.yaml"))
    assert agent.signatures == "require"
    agent.check_files()
    launcher = block("dagster.yaml")["run_launcher"]["config"]
    assert launcher.keys() <= SCHEMA.keys()
    (key,) = agent.signing_keys
    assert f"key id            {public_key_of(key).key_id}\n" in PAGE
    assert f"public key        {key}\n" in PAGE


def test_the_page_says_of_every_field_of_a_launch_whose_word_it_is() -> None:
    table = PAGE[PAGE.index("| field of the launch |") : PAGE.index("Of the `requirements`")]
    fields = {field.name for field in run_pb2.LaunchSpec.DESCRIPTOR.fields} - {"signed"}
    for row in table.splitlines()[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) < 2:
            continue
        named = re.findall(r"`(\w+)`", cells[0].partition(":")[0]) or []
        for name in named:
            assert name in fields, f"{name} is named twice or is none"
            fields.remove(name)
            assert (name in COORDINATORS) == (cells[1] == "the coordinator's"), name
    assert not fields


@pytest.mark.parametrize(
    ("message", "start"),
    [(placement_pb2.Requirements, "Of the `requirements`"), (run_pb2.Policies, "| `policies`")],
)
def test_the_page_names_all_that_the_coordinator_decides(message: Any, start: str) -> None:
    part = PAGE[PAGE.index(start) :].partition("\n" if start.startswith("|") else "A driver or image")[0]
    for field in message.DESCRIPTOR.fields:
        assert f"`{field.name}`" in part, field.name
