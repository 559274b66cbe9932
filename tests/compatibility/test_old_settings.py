"""Settings files of version 0.1.0 are read to the same values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compatibility.comparing import RECORDED, differences, recorded
from compatibility.readers import (
    read_agent_settings,
    read_coordinator_settings,
    read_launcher_settings,
    read_routing,
)


def read_dagster(file: Path) -> dict[str, Any]:
    """Read the launcher's section of `dagster.yaml`."""
    section = yaml.safe_load(file.read_text())["run_launcher"]["config"]
    return read_launcher_settings(section, recorded("environment.json"))


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "agent.yaml": read_agent_settings,
    "agent_docker_allow.yaml": read_agent_settings,
    "coordinator.yaml": read_coordinator_settings,
    "routing.yaml": read_routing,
    "dagster.yaml": read_dagster,
}


@pytest.mark.parametrize("name", READERS)
def test_every_setting_of_0_1_0_is_still_read_to_the_same_value(name: str) -> None:
    assert differences(recorded("settings.json")[name], READERS[name](RECORDED / name)) == []
