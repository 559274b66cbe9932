"""Every setting can be set in the file, in the environment and by a flag, with the same result."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runyard.agent.__main__ import SERVICE as AGENT
from runyard.common.service.service_main import Service
from runyard.common.service.setting_keys import SettingKey, setting_keys
from runyard.common.service.settings import Settings, SettingsError
from runyard.common.service.settings_sources import environment_name, load_settings
from runyard.coordinator.command import SERVICE as COORDINATOR

SERVICES: tuple[Service[Any], ...] = (COORDINATOR, AGENT)

RATE = {"per_second": 7.0, "burst": 7}
TLS = {"authority": "/tls/a.pem", "certificate": "/tls/c.pem", "key": "/tls/k.pem"}
JOIN = {"address": "one.example:7172", "token_file": "/token"}

VALUES: dict[str, Any] = {
    "access": {"clients": {"night": {"clusters": ["west"]}}},
    "access.clients": {"night": {"clusters": ["west"]}},
    "coordinator": "unix:/run/other.sock",
    "docker": {"image": "etl"},
    "docker.allow": {"privileged": True},
    "docker.host": "unix:///run/other.sock",
    "docker.registries": {"registry.example": {"username": "a", "password_file": "/p"}},
    "docker.container_kwargs": {"shm_size": "1g"},
    "environment": {"A": "b", "C": {"env": "D"}},
    "isolation": {"users": ["etl"]},
    "isolation.backends": ["watchdog"],
    "isolation.run_as": {"shop": "etl"},
    "join": JOIN,
    "join.address": "two.example:7172",
    "join_listen": "one.example:7172",
    "labels": {"zone": "a", "gpu": "4"},
    "listen": "unix:/run/other.sock",
    "policy": {"allow_root": True},
    "policy.profiles": [{"name": "nightly", "memory": "16Gi"}],
    "pressure": {"pids": 7},
    "pressure.memory": "1Gi",
    "pressure.disk": "1Gi",
    "pressure.pids": 7,
    "rates": {"join": RATE},
    "references": {"env": ["RUNS_*"]},
    "references.files": ["/run/secrets/*"],
    "reserved": {"cpu": "500m"},
    "resources": {"cpu": 7.5, "memory": "32Gi"},
    "slots": 7,
    "max_concurrent_starts": 999,
    "tls": TLS,
    "warm": {"mode": "off"},
    "warm.locations": {"shop": "off"},
    "warm.min_available": 0.5,
    **{f"rates.{limit}": RATE for limit in ("launch", "join", "failed_authentication")},
}
"""Values that do not follow from the type of the setting."""

SURROUNDINGS: dict[str, dict[str, Any]] = {
    "join_listen": {"tls": TLS, "ca_directory": "/ca"},
    "isolation.run_as": {"isolation": {"users": ["etl"]}},
    "signatures": {"signing_keys": ["key"]},
    "tls": {"tls": TLS},
    "join": {"join": JOIN},
    "rates.launch": {"rates": {"launch": RATE}},
    "rates.join": {"rates": {"join": RATE}},
    "rates.failed_authentication": {"rates": {"failed_authentication": RATE}},
}
"""Settings in the file that a setting, or those in a section, need."""


def value_of(key: SettingKey) -> Any:
    if key.name in VALUES:
        return VALUES[key.name]
    if key.type.startswith("`"):
        return next(choice for choice in key.type.replace("`", "").split(", ") if choice != key.default)
    match key.type:
        case "text":
            return "given"
        case "path":
            return "/given"
        case "true or false":
            return key.default != "true"
        case "integer":
            return int(key.default or 0) + 3
        case "number":
            return float(key.default or 0) + 7.5
        case "list of text":
            return ["given"]
        case "mapping to text":
            return {"given": "a"}
    raise AssertionError(f"add a value for {key.name} to VALUES")


def surroundings_of(key: SettingKey) -> dict[str, Any]:
    if key.name in SURROUNDINGS:
        return SURROUNDINGS[key.name] if not key.is_section else {}
    return SURROUNDINGS.get(".".join(key.path[:-1]), {})


def with_value(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**content, path[0]: value}
    return {**content, path[0]: with_value(content.get(path[0], {}), path[1:], value)}


ALL = [(service, key) for service in SERVICES for key in setting_keys(service.settings)]
EVERY_SETTING = pytest.mark.parametrize(
    ("service", "key"), ALL, ids=[f"{service.role}-{key.name}" for service, key in ALL]
)


def started(service: Service[Any], content: dict[str, Any], tmp_path: Path, *flags: str) -> Settings:
    found: list[Settings] = []

    def serve(settings: Settings) -> int:
        found.append(settings)
        return 0

    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(content))
    stub = Service(
        service.role,
        service.summary,
        service.settings,
        serve,
        (),
        service.short_flags,
        service.entry_flags,
    )
    assert stub.main(["--config", str(file), *flags]) == 0
    return found[0]


@EVERY_SETTING
def test_a_setting_has_the_same_result_from_file_environment_and_flag(
    service: Service[Any], key: SettingKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.common.service.service_main.configure_log", lambda *_: None)
    value, base = value_of(key), surroundings_of(key)
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=1000)
    text = text.strip().removesuffix("\n...")
    from_file = started(service, with_value(base, key.path, value), tmp_path)
    for flag in service.flags_of(key):
        assert started(service, base, tmp_path, f"{flag}={text}") == from_file
    monkeypatch.setenv(environment_name(service.prefix, key.path), text)
    assert started(service, base, tmp_path) == from_file
    monkeypatch.undo()
    assert from_file != service.settings.model_validate(base)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.role)
def test_help_lists_every_setting_and_every_setting_is_described(
    service: Service[Any],
) -> None:
    # In a process of its own: typer reads the width when it is loaded.
    environment = {**os.environ, "TERMINAL_WIDTH": "400"}
    command = [sys.executable, "-m", f"runyard.{service.role}", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shown = done.stdout.replace(",", " ")
    for key in setting_keys(service.settings):
        assert key.help, key.name
        for flag in service.flags_of(key):
            assert f" {flag} " in shown


def test_a_flag_overrides_the_environment_and_the_environment_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("warm: {max_runs: 1, max_servers: 1, steps: false}\nlabels: {a: b}\n")
    settings = load_settings(
        AGENT.settings,
        file=file,
        prefix="RUNYARD_AGENT",
        environment={"RUNYARD_AGENT_WARM__MAX_RUNS": "2", "RUNYARD_AGENT_WARM__MAX_SERVERS": "2"},
        flags={"warm.max_runs": 3, "labels": {"c": "d"}},
    )
    warm = settings.warm
    assert (warm.max_runs, warm.max_servers, warm.steps) == (3, 2, False)
    assert settings.labels == {"c": "d"}


def test_a_whole_section_in_the_environment_replaces_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("warm: {max_runs: 1}")
    environment = {"RUNYARD_AGENT_WARM": "{max_age: 5}", "RUNYARD_AGENT_WARM__MAX_SERVERS": "2"}
    settings = load_settings(
        AGENT.settings, file=file, prefix="RUNYARD_AGENT", environment=environment, flags={}
    )
    assert settings == AGENT.settings.model_validate({"warm": {"max_age": 5, "max_servers": 2}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: a:1\nlease: soon\n", "coordinator.yaml: line 2, lease: Input should be a valid number"),
        (
            "\nrates:\n  join: {burst: 0, per_second: 1}\n",
            "line 3, rates.join.burst: Input should be greater",
        ),
        ("tls:\n  key: /k\n", "line 1, tls.authority: is required"),
        ("tls:\n  kye: /k\n", "line 2, tls.kye: there is no such setting; known settings: authority,"),
        ("lease: 1\nlease: 2\n", "line 2, lease: is on line 1 already; keep one of them"),
        ("a: [&x [1], *x, <<]\nb: {<<: 1}\n", "line 2, b: merge keys (<<) are not supported"),
        (f"a: {'[' * 50}{']' * 50}", "line 1: is not valid YAML: is nested deeper than 20 levels"),
        (f"# {'x' * 300_000}", "has more than 262144 bytes"),
        (
            "access: {clients: {a: {cluster: [b]}}}",
            "line 1, access.clients.a.cluster: there is no such setting; known settings: clusters",
        ),
    ],
)
def test_an_error_names_the_line_of_the_file(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "coordinator.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(COORDINATOR.settings, file=file, prefix="NONE", flags={})
    assert f"{file}: " in str(refused.value)
    assert problem in str(refused.value)


@pytest.mark.parametrize("flag", [True, False])
def test_an_error_names_the_flag_or_variable_that_holds_the_value(tmp_path: Path, flag: bool) -> None:
    environment = {} if flag else {"RUNYARD_COORDINATOR_RATES__JOIN": "{burst: 0, per_second: 1}"}
    flags = {"rates.join": {"burst": 0, "per_second": 1}} if flag else {}
    file = tmp_path / "coordinator.yaml"
    file.write_text("lease: 5")
    with pytest.raises(SettingsError) as refused:
        load_settings(
            COORDINATOR.settings,
            file=file,
            prefix="RUNYARD_COORDINATOR",
            flags=flags,
            environment=environment,
        )
    origin = "--rates.join" if flag else "environment variable RUNYARD_COORDINATOR_RATES__JOIN"
    assert str(refused.value).startswith(f"{origin}: rates.join.burst: Input should be greater")


def test_no_error_quotes_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    texts = (
        "docker: {registries: {r: {username: a, password: [hunter2]}}}",
        "docker: {registries: {r: {username: a, password: hunter2, password_file: /p}}}",
        "docker: {registries: {r: {username: a, pasword: hunter2}}}",
        "environment: {TOKEN: {evn: hunter2}}",
        "environment: {TOKEN: hunter2: x}",
        "environment: {TOKEN: !!int hunter2}",
    )
    for text in texts:
        file.write_text(text)
        assert AGENT.main(["--check", "--config", str(file)]) == 2
        printed = capsys.readouterr()
        assert "hunter2" not in printed.out + printed.err


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.role)
def test_the_version_is_printed(service: Service[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        service.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("runyard ")


def test_only_the_reader_of_dagsters_own_file_loads_yaml_without_bounds() -> None:
    root = Path(__file__).parents[2]
    parts = ("common", "coordinator", "agent", "cli", "client", "launcher")
    loaders = {
        str(file.relative_to(root))
        for part in parts
        for file in (root / part).rglob("*.py")
        if any(word in file.read_text() for word in ("safe_load", "yaml.load", "full_load"))
    }
    assert loaders == {"cli/runyard/cli/doctor/dagster_checks.py"}
