"""The agent's settings: from a file, the environment and the command line, and checked by key."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.certificates import Authority, tls_settings

from runyard.agent.__main__ import main
from runyard.agent.config.agent import INHERITED, AgentSettings
from runyard.common.service.settings_sources import load_settings

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs `--check` on a file with that content; gives the exit code and what was printed."""

    def run(content: str, *arguments: str) -> tuple[int, str]:
        file = tmp_path / "agent.yaml"
        file.write_text(content)
        code = main(["--config", str(file), "--check", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{node_id: a, cluster: west.1, slots: 0, labels: {gpu: a100, zone/name: '1'}}",
        "{coordinator: 'unix:/run/runyard.sock', state_directory: /tmp/x, log_format: json}",
        "{python: /usr/bin/python3, interpreters: {shop.py: /opt/shop/bin/python}, working_directory: /srv}",
        "{environment: {A: b}, inherit_environment: [PATH, AWS_PROFILE], keep_logs: 0, keep_runs: 0}",
        "{coordinator: 'runyard.example:7171', join: {address: 'runyard.example:7172', token_file: /t}}",
        "{resources: {cpu: 7.5, memory: 32Gi, gpu: 0, licenses: 3}, reserved: {cpu: 500m, memory: 2Gi}}",
        "{taints: [gpu, batch=night]}",
    ],
)
def test_good_settings_are_fine(check: Check, content: str) -> None:
    assert check(content) == (0, "the settings are fine\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("slot: 4", "slot: there is no such setting; known settings: cluster,"),
        ("slots: many", "slots: Input should be a valid integer"),
        ("slots: -1", "slots: Input should be greater than or equal to 0"),
        ("slots: 10001", "slots: Input should be less than or equal to 10000"),
        ("node_id: a/b", "node_id: 'a/b' must be letters, digits"),
        ("node_id: ''", "node_id: '' must be letters, digits"),
        ("cluster: a b", "cluster: 'a b' must be letters, digits"),
        ("labels: [a]", "labels: Input should be a valid dictionary"),
        ("labels: {a b: c}", "labels: key 'a b' must be letters, digits"),
        ("labels: {a/b/c: d}", "labels: key 'a/b/c'"),
        ("labels: {zone: a b}", "labels: value 'a b' of 'zone'"),
        ("coordinator: localhost", "coordinator: 'localhost' has no port; write host:port"),
        ("resources: [cpu]", "resources: Input should be a valid dictionary"),
        ("resources: {cpu: many}", "resources: cpu: 'many' is not a number of cores; write for example 2"),
        ("resources: {a b: 1}", "resources: a b: the name 'a b' is not letters"),
        ("resources: {slots: 3}", "resources: slots have a setting of their own: write `slots: 4`"),
        ("reserved: {memory: 1 giga}", "reserved: memory: '1 giga' is not an amount of memory"),
        ("taints: gpu", "taints: Input should be a valid tuple"),
        ("taints: [a b]", "taints: 'a b' must be `key` or `key=value`"),
        ("taints: ['=a']", "taints: '=a' must be `key` or `key=value`"),
        ("keep_logs: -1", "keep_logs: Input should be greater than or equal to 0"),
        ("environment: {A: 1}", "environment.A: must be a text (put numbers in quotes), {env: NAME} or"),
        ("log_level: loud", "log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_setting_that_cannot_be_used_is_named_with_its_file(
    check: Check, content: str, expected: str
) -> None:
    code, printed = check(content)
    assert code == 2
    assert printed.startswith("runyard agent: ")
    assert "agent.yaml: " in printed
    assert expected in printed


def test_coordinator_beyond_this_machine_needs_certificates(check: Check, tmp_path: Path) -> None:
    code, printed = check("", "--coordinator", "runyard.example:7171")
    assert code == 2
    assert "will not dial runyard.example:7171 without certificates" in printed
    files = Authority().agent(tmp_path / "tls", "a")
    named = (f"--tls-{part}={path}" for part, path in tls_settings(files).items())
    assert check("", "--coordinator", "runyard.example:7171", *named)[0] == 0


def test_command_line_wins_over_the_file(check: Check) -> None:
    content = "{slots: 1, node_id: good, cluster: good, labels: {a: b}}"
    for flags, problem in (
        (("--node", "a/b"), "node_id: 'a/b'"),
        (("--cluster", "a/b"), "cluster: 'a/b'"),
        (("--slots", "-2"), "slots: "),
        (("--label", "a b=c"), "labels: key 'a b'"),
        (("--resource", "cpu=many"), "resources: cpu: 'many'"),
        (("--resource", "cpu=1", "--resource", "a b=2"), "resources: a b: the name"),
        (("--taint", "ok", "--taint", "a b"), "taints: 'a b'"),
        (("--coordinator", "nowhere"), "coordinator: 'nowhere'"),
    ):
        assert problem in check(content, *flags)[1]


def test_label_on_the_command_line_must_have_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--check", "--label", "gpu"])
    assert ended.value.code == 2
    assert "'gpu' is not of the form KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(("written", "meant"), [(4, "4"), (True, "true"), (1.5, "1.5"), ("a", "a")], ids=str)
def test_labels_are_texts_whatever_yaml_takes_them_for(written: object, meant: str) -> None:
    assert AgentSettings.model_validate({"labels": {"key": written}}).labels == {"key": meant}


def test_worker_inherits_nothing_by_default_that_names_a_secret() -> None:
    assert AgentSettings().inherit_environment == INHERITED
    telling = ("SECRET", "TOKEN", "PASSWORD", "KEY", "CREDENTIAL", "AWS")
    assert not [name for name in INHERITED if any(word in name for word in telling)]


def test_node_is_named_after_its_host() -> None:
    assert AgentSettings().node_id == socket.gethostname()


def test_amounts_are_read_into_whole_units() -> None:
    settings = AgentSettings.model_validate({"resources": {"cpu": 7.5, "memory": "1Gi", "licenses": "3"}})
    assert settings.resources == {"cpu": 7500, "memory": 1 << 30, "licenses": 3}


def test_settings_of_0_1_0_are_read_under_their_old_names(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "{expect_back: 5, isolation: {rungs: [watchdog]}, pressure: {calm: 6}, warm: {remember: 7}}"
    )
    renamed: list[tuple[str, str]] = []
    settings = load_settings(
        AgentSettings,
        file=file,
        prefix="NONE",
        flags={},
        on_renamed=lambda old, new: renamed.append((old, new)),
    )
    assert settings.restart_grace == 5.0
    assert settings.isolation.backends == ("watchdog",)
    assert settings.pressure.recovery_period == 6.0
    assert settings.warm.retention == 7.0
    assert renamed == [
        ("expect_back", "restart_grace"),
        ("isolation.rungs", "isolation.backends"),
        ("pressure.calm", "pressure.recovery_period"),
        ("warm.remember", "warm.retention"),
    ]
