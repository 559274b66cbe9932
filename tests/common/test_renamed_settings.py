"""Settings that have a new name are still read under the old one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runyard.common.service.settings import Settings, SettingsError, load_settings


class Section(Settings):
    renamed: ClassVar[Mapping[str, str]] = {"calm": "recovery_period"}
    recovery_period: float = 30.0


class Example(Settings):
    renamed: ClassVar[Mapping[str, str]] = {"expect_back": "restart_grace"}
    restart_grace: float = 120.0
    pressure: Section | None = None


def loaded(text: str, tmp_path: Path, **environment: str) -> tuple[Example, list[tuple[str, str]]]:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    renamed: list[tuple[str, str]] = []
    settings = load_settings(
        Example,
        file=file,
        prefix="TEST",
        flags={},
        environment=environment,
        on_renamed=lambda old, new: renamed.append((old, new)),
    )
    return settings, renamed


@pytest.mark.parametrize(
    ("text", "expected", "renamed"),
    [
        ("restart_grace: 5", {"restart_grace": 5.0}, []),
        ("expect_back: 5", {"restart_grace": 5.0}, [("expect_back", "restart_grace")]),
        (
            "pressure: {calm: 5}",
            {"pressure": Section(recovery_period=5.0)},
            [("pressure.calm", "pressure.recovery_period")],
        ),
    ],
)
def test_an_old_name_is_read_and_reported_with_the_current_one(
    text: str, expected: dict[str, Any], renamed: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert loaded(text, tmp_path) == (Example(**expected), renamed)


def test_an_old_name_in_the_environment_overrides_the_file(tmp_path: Path) -> None:
    settings, renamed = loaded("restart_grace: 5", tmp_path, TEST_EXPECT_BACK="7")
    assert settings.restart_grace == 7.0
    assert renamed == [("expect_back", "restart_grace")]


def test_a_setting_under_both_names_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^pressure\.calm: is the old name of pressure\.recovery_period"):
        loaded("pressure: {calm: 5, recovery_period: 5}", tmp_path)
