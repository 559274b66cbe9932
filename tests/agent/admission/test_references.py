"""Values that the node looks up: what may be referred to, what is found, and how it is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.admission.references import LARGEST_FILE
from runyard.agent.admission.specs import build_spec_record
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.references import ReferenceRules
from runyard.agent.core.model import UNKNOWN_LAUNCH
from runyard.agent.supervisor.records import SpecRecord
from runyard.common.references import FromFile
from runyard.common.secrets import masked
from runyard.v1 import run_pb2

OWN = {"RUNS_PASSWORD": "from-the-node", "OTHER": "not-for-runs"}


def launch(
    context: dict[str, Any] | None = None, env: dict[str, str] | None = None, **sources: Any
) -> run_pb2.LaunchSpec:
    """A launch with these references by variable, such as `A={"env": "B"}`."""
    spec = run_pb2.LaunchSpec(run_id="r", kind=run_pb2.LAUNCH_KIND_EXECUTE, environment=env or {})
    for name, source in sources.items():
        spec.environment_references[name].CopyFrom(run_pb2.EnvironmentReference(**source))
    if context is not None:
        spec.code_origin.container_context_json = json.dumps({"runyard": context})
    return spec


def record(spec: run_pb2.LaunchSpec, **settings: Any) -> SpecRecord:
    settings = {"node_id": "rack-1", "inherit_environment": (), **settings}
    return build_spec_record(AgentSettings(**settings), UNKNOWN_LAUNCH, spec, OWN)


def refusal(spec: run_pb2.LaunchSpec, **settings: Any) -> str:
    with pytest.raises(UnusableLaunch) as refused:
        record(spec, **settings)
    assert "not-for-runs" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text("from-a-file\n")
    return tmp_path


def test_a_launch_gets_what_the_owner_lets_it_refer_to(folder: Path) -> None:
    spec = launch(A={"env": "RUNS_PASSWORD"}, B={"file": f"{folder}/password"})
    made = record(spec, references={"env": ["RUNS_*"], "files": [f"{folder}/*"]})
    assert made.env == {"A": "from-the-node", "B": "from-a-file"}


def test_by_default_a_launch_may_refer_to_nothing() -> None:
    assert refusal(launch(A={"env": "RUNS_PASSWORD"})) == (
        "environment variable A refers to env:RUNS_PASSWORD, which the owner of node rack-1 does not allow; "
        "it would have to be among references.env in the settings of its agent"
    )
    assert "references.files" in refusal(launch(A={"file": "/etc/hostname"}))


def test_what_the_owner_does_not_name_is_refused(folder: Path) -> None:
    rules = {"env": ["RUNS_*"], "files": [f"{folder}/*"]}
    assert "env:OTHER" in refusal(launch(A={"env": "OTHER"}), references=rules)
    assert "file:/etc/passwd" in refusal(launch(A={"file": "/etc/passwd"}), references=rules)
    assert "not allow" in refusal(launch(A={"file": f"{folder}/deeper/password"}), references=rules)


@pytest.mark.parametrize("path", ["/a/../etc/shadow", "a", "", "/a//b", "/a/./b", "/a/b\0"])
def test_a_path_that_takes_turns_is_refused_whatever_is_allowed(path: str) -> None:
    everything = {"files": ["/*", "/*/*", "/*/*/*", "/*/*/*/*"]}
    assert "must be an absolute path" in refusal(launch(A={"file": path}), references=everything)


def test_what_is_not_there_is_a_refusal_that_names_variable_and_node(folder: Path) -> None:
    rules = {"env": ["*"], "files": [f"{folder}/*"]}
    assert refusal(launch(A={"env": "GONE"}), references=rules) == (
        "environment variable A refers to env:GONE, which node rack-1 lacks: "
        "it is not in the environment of its agent"
    )
    assert "lacks: No such file" in refusal(launch(A={"file": f"{folder}/gone"}), references=rules)


def test_a_reference_of_a_later_version_is_refused() -> None:
    assert "upgrade it" in refusal(launch(A={}), references={"env": ["*"], "files": ["/*"]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x" * (LARGEST_FILE + 1), "larger than 64 KiB"),
        (b"a\0b", "zero byte"),
        (b"\xff\xfe", "not UTF-8"),
    ],
    ids=["large", "zero", "binary"],
)
def test_a_file_that_cannot_be_a_value_is_refused(folder: Path, content: bytes, reason: str) -> None:
    (folder / "odd").write_bytes(content)
    assert reason in refusal(launch(A={"file": f"{folder}/odd"}), references={"files": [f"{folder}/odd"]})


def test_a_pipe_does_not_hang_the_agent(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert "not a regular file" in refusal(
        launch(A={"file": f"{folder}/pipe"}), references={"files": [f"{folder}/*"]}
    )


@pytest.mark.parametrize(
    ("content", "value"), [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("a\nb\n", "a\nb")]
)
def test_of_a_file_only_one_final_line_break_is_left_out(folder: Path, content: str, value: str) -> None:
    (folder / "value").write_bytes(content.encode())
    made = record(launch(), environment={"A": {"file": f"{folder}/value"}})
    assert made.env == {"A": value}


def test_the_owner_may_refer_to_all_that_his_agent_can_read(folder: Path) -> None:
    made = record(
        launch(), environment={"A": {"env": "OTHER"}, "B": {"file": f"{folder}/password"}, "C": "plain"}
    )
    assert made.env == {"A": "not-for-runs", "B": "from-a-file", "C": "plain"}
    assert made.secret_names == ["A", "B"]


@pytest.mark.parametrize("value", [{"env": "A", "file": "/a"}, {"env": 1}, {"path": "/a"}, ["a"], 1, None])
def test_a_setting_that_is_neither_text_nor_reference_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a text .* or \{file: /path\}"):
        AgentSettings.model_validate({"environment": {"A": value}})


def test_values_that_look_like_references_stay_what_they_are() -> None:
    literal = {"A": "env:OTHER", "B": "file:/etc/passwd", "C": "{env: OTHER}", "D": "X@env:OTHER"}
    assert record(launch(env=literal)).env == literal
    assert record(launch(), environment=literal).env == literal


def test_a_code_location_may_give_values_and_refer_to_others() -> None:
    spec = launch(
        context={"env_vars": ["A=1", "B@env:RUNS_PASSWORD", "C=x@env:y"], "memory": "1Gi"}, env={"A": "2"}
    )
    made = record(spec, references={"env": ["RUNS_*"]}, environment={"A": "0", "D": "0"})
    assert made.env == {"A": "2", "B": "from-the-node", "C": "x@env:y", "D": "0"}


@pytest.mark.parametrize("entries", [["A"], ["=x"], [1], "A=1", {"A": "1"}])
def test_a_code_location_that_makes_no_sense_is_refused(entries: object) -> None:
    assert "container_context: runyard: env_vars" in refusal(launch(context={"env_vars": entries}))


def test_what_was_looked_up_is_a_secret_whatever_it_is_called() -> None:
    spec = launch(
        env={"PLAIN": "no-secret", "API_TOKEN": "token-of-launch"}, INNOCENT={"env": "RUNS_PASSWORD"}
    )
    made = record(spec, references={"env": ["RUNS_PASSWORD"]})
    assert made.secret_names == ["API_TOKEN", "INNOCENT"]
    assert masked("from-the-node token-of-launch no-secret") == "*** *** no-secret"


def test_neither_record_nor_settings_show_values() -> None:
    made = record(launch(env={"A": "launched-value"}), environment={"B": "owned-value"})
    settings = AgentSettings.model_validate({"environment": {"B": "owned-value"}})
    assert "launched-value" not in repr(made)
    assert "owned-value" not in repr(made) + repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/run/secrets/*", "/run/secrets/a", True),
        ("/run/secrets/*", "/run/secrets/a/b", False),
        ("/run/*/a", "/run/x/a", True),
        ("/run/*/a", "/run/x/y/a", False),
        ("/run/secrets/db_?", "/run/secrets/db_1", True),
        ("/run/secrets", "/run/secrets/a", False),
        ("/*", "/run/a", False),
    ],
)
def test_a_star_stands_for_one_part_of_a_path(pattern: str, path: str, fits: bool) -> None:
    assert ReferenceRules(files=(pattern,)).allow(FromFile(path)) is fits


def test_a_rule_about_files_must_be_absolute() -> None:
    with pytest.raises(ValueError, match="must be an absolute path, such as /run/secrets"):
        ReferenceRules(files=("secrets/*",))
