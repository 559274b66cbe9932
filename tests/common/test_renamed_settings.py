"""Settings that have a new name are still read under the old one, from every source."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from runyard.agent.__main__ import SERVICE as AGENT
from runyard.common.service.service_main import Service
from runyard.common.service.setting_keys import SettingKey, setting_keys
from runyard.common.service.settings import Settings, SettingsError, written_keys
from runyard.common.service.settings_sources import environment_name, flag_name, load_settings
from runyard.coordinator.command import SERVICE as COORDINATOR

SERVICES: tuple[Service[Any], ...] = (COORDINATOR, AGENT)

VALUES: dict[tuple[str, ...], Any] = {
    ("restart_grace",): 5.5,
    ("isolation", "backends"): ["watchdog"],
    ("pressure", "recovery_period"): 5.5,
    ("warm", "retention"): 5.5,
}
"""A value other than the default for every renamed setting."""


def renames() -> Iterator[tuple[Service[Any], SettingKey, tuple[str, ...]]]:
    for service in SERVICES:
        for key in setting_keys(service.settings):
            for old in key.old_names:
                yield service, key, old


RENAMES = list(renames())
EVERY_RENAME = pytest.mark.parametrize(
    ("service", "key", "old"), RENAMES, ids=[".".join(old) for _, _, old in RENAMES]
)


def nested(path: tuple[str, ...], value: Any) -> Any:
    for part in reversed(path):
        value = {part: value}
    return value


def loaded(
    service: Service[Any], tmp_path: Path, content: Any = None, **sources: Mapping[str, Any]
) -> tuple[Settings, list[tuple[str, str]]]:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(content or {}))
    renamed: list[tuple[str, str]] = []
    settings = load_settings(
        service.settings,
        file=file,
        prefix=service.prefix,
        flags=sources.get("flags", {}),
        environment=sources.get("environment", {}),
        on_renamed=lambda old, new: renamed.append((old, new)),
    )
    return settings, renamed


def test_every_declared_rename_is_in_this_test() -> None:
    declared = {path for service in SERVICES for path in written_keys(service.settings)}
    current = {key.path for service in SERVICES for key in setting_keys(service.settings)}
    assert declared - current == {old for _, _, old in RENAMES}
    assert {key.path for _, key, _ in RENAMES} == VALUES.keys()


@EVERY_RENAME
def test_an_old_name_is_read_from_file_environment_and_flag_and_reported(
    service: Service[Any], key: SettingKey, old: tuple[str, ...], tmp_path: Path
) -> None:
    value = VALUES[key.path]
    written = yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...")
    expected = service.settings.model_validate(nested(key.path, value)), [(".".join(old), key.name)]
    assert expected[0] != service.settings()
    assert loaded(service, tmp_path, nested(old, value)) == expected
    environment = {environment_name(service.prefix, old): written}
    assert loaded(service, tmp_path, environment=environment) == expected
    assert loaded(service, tmp_path, flags={".".join(old): value}) == expected


@EVERY_RENAME
def test_the_check_prints_one_line_for_an_old_name_from_each_source(
    service: Service[Any],
    key: SettingKey,
    old: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = yaml.safe_dump(VALUES[key.path], default_flow_style=True).strip().removesuffix("\n...")
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(nested(old, VALUES[key.path])))
    expected = f"setting `{'.'.join(old)}` is deprecated since 0.2; write `{key.name}`"
    assert service.main(["--check", f"{flag_name(old)}={value}"]) == 0
    assert capsys.readouterr().err.count(expected) == 1
    assert service.main(["--check", "--config", str(file)]) == 0
    assert capsys.readouterr().err.count(expected) == 1
    monkeypatch.setenv(environment_name(service.prefix, old), value)
    assert service.main(["--check", "--config", str(file)]) == 0
    assert capsys.readouterr().err.count(expected) == 1


@EVERY_RENAME
def test_both_names_in_one_source_are_an_error_that_names_both(
    service: Service[Any], key: SettingKey, old: tuple[str, ...], tmp_path: Path
) -> None:
    value = VALUES[key.path]
    text = yaml.safe_dump(value)
    both = {old: value, key.path: value}
    section = {path[-1]: item for path, item in both.items()}
    sources: tuple[tuple[Any, dict[str, Mapping[str, Any]]], ...] = (
        (nested(old[:-1], section), {}),
        (None, {"environment": {environment_name(service.prefix, path): text for path in both}}),
        (None, {"flags": {".".join(path): value for path in both}}),
        (None, {"flags": nested(old[:-1], section)}),
    )
    for content, given in sources:
        with pytest.raises(SettingsError) as refused:
            loaded(service, tmp_path, content, **given)
        assert f"{'.'.join(old)}: is the old name of {key.name}, which is set too" in str(refused.value)


def test_both_names_in_a_file_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("pressure:\n  recovery_period: 5\n  calm: 5\n")
    with pytest.raises(SettingsError, match=r"settings\.yaml: line 3, pressure\.calm: is the old name of"):
        load_settings(AGENT.settings, file=file, prefix="NONE", flags={})


def test_an_old_name_in_the_environment_overrides_the_current_one_in_the_file(tmp_path: Path) -> None:
    environment = {"RUNYARD_AGENT_EXPECT_BACK": "7"}
    settings, renamed = loaded(AGENT, tmp_path, {"restart_grace": 5}, environment=environment)
    assert settings == AGENT.settings.model_validate({"restart_grace": 7})
    assert renamed == [("expect_back", "restart_grace")]


def test_a_wrong_value_under_an_old_name_is_reported_under_the_name_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml: line 1, expect_back: Input should be"):
        loaded(AGENT, tmp_path, {"expect_back": "soon"})
