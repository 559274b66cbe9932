"""The checks of `runyard doctor` on Dagster's settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runyard.cli.doctor.findings import Finding, ok, problem, warning
from runyard.cli.doctor.waiting_checks import examine_waiting
from runyard.client.errors import RunyardError
from runyard.common.service.yaml_errors import explained
from runyard.common.transport.address import parse_address

LAUNCHER_MODULE = "runyard.launcher"
LAUNCHER_CLASS = "RunyardRunLauncher"


def launcher_yaml(address: str) -> str:
    """The five lines of dagster.yaml that plug Runyard in."""
    return (
        "run_launcher:\n"
        f"  module: {LAUNCHER_MODULE}\n"
        f"  class: {LAUNCHER_CLASS}\n"
        "  config:\n"
        f"    address: {address}\n"
    )


def examine_dagster(home: Path, address: str) -> Iterator[Finding]:
    """Checks dagster.yaml: that it uses Runyard's launcher, with settings that work.

    Args:
        home: Directory of dagster.yaml.
        address: Where the coordinator was looked for.
    """
    path = home / "dagster.yaml"
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        remedy = f"Make one there with:\n{launcher_yaml(address)}"
        yield problem("dagster.yaml", f"{path} cannot be read: {error.strerror}", remedy.rstrip())
        return
    except yaml.YAMLError as error:
        yield problem(
            "dagster.yaml", f"{path} is not YAML: {explained(error)}", "Mend the line that it names"
        )
        return
    if not isinstance(settings, dict):
        yield problem("dagster.yaml", f"{path} holds no settings", "Write `name: value` lines")
        return
    yield from _examine_launcher(settings.get("run_launcher"), address)
    yield examine_waiting(settings.get("run_monitoring"), _config(settings.get("run_launcher")))


def _examine_launcher(launcher: object, address: str) -> Iterator[Finding]:
    named = (launcher.get("module"), launcher.get("class")) if isinstance(launcher, dict) else None
    if not isinstance(launcher, dict) or named != (LAUNCHER_MODULE, LAUNCHER_CLASS):
        other = "the default" if named is None else f"{named[0]}.{named[1]}"
        remedy = f"Write into dagster.yaml:\n{launcher_yaml(address)}"
        yield problem("run launcher", f"is {other}, not Runyard's", remedy.rstrip())
        return
    yield _launcher_settings(_config(launcher), address)


def _config(launcher: object) -> dict[str, Any]:
    config = launcher.get("config") if isinstance(launcher, dict) else None
    return config if isinstance(config, dict) else {}


def _launcher_settings(config: dict[str, Any], address: str) -> Finding:
    """Has Dagster itself read the launcher's settings, if it is installed here."""
    try:
        from dagster import DagsterInvalidConfigError
        from dagster._serdes import ConfigurableClassData

        from runyard.launcher.launcher import RunyardRunLauncher
    except ImportError:
        return warning(
            "run launcher",
            "its settings were not checked: Dagster is not installed here",
            "Run `runyard doctor` in Dagster's environment",
        )
    written = ConfigurableClassData(LAUNCHER_MODULE, LAUNCHER_CLASS, yaml.safe_dump(config))
    try:
        dialled = written.rehydrate(as_type=RunyardRunLauncher).settings.address
        same = parse_address(dialled) == parse_address(address)
    except DagsterInvalidConfigError as error:
        text = "; ".join(" ".join(each.message.split()) for each in error.errors)
        return problem("run launcher", text, "Mend run_launcher.config in dagster.yaml")
    except RunyardError as error:
        return problem("run launcher", str(error), "Mend run_launcher.config in dagster.yaml")
    if not same:
        return warning(
            "run launcher",
            f"uses the coordinator at {dialled}, not the one that was checked here ({address})",
            f"Check that one with: runyard doctor --address {dialled}",
        )
    return ok("run launcher", f"{LAUNCHER_MODULE}.{LAUNCHER_CLASS}, at {dialled}")
