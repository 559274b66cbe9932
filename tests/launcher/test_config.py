"""The launcher's settings: what dagster.yaml may say, and when it is looked up."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterInvalidConfigError
from harness.certificates import CLIENT, Authority, tls_settings
from launcher.shop import write_home

from runyard.client import InsecureAddress, InvalidAddress, InvalidTlsFiles, RunyardError, TlsFiles
from runyard.common.references import FromEnvironment, FromFile
from runyard.launcher import RunyardRunLauncher
from runyard.launcher.config import resolve_environment
from runyard.launcher.errors import InvalidLauncherConfig

NewLauncher = Callable[[dict[str, object]], RunyardRunLauncher]


@pytest.fixture
def new_launcher(template: Path, tmp_path: Path) -> NewLauncher:
    """Makes a launcher from the `config` of a dagster.yaml, as Dagster does."""

    def make(config: dict[str, object]) -> RunyardRunLauncher:
        home = shutil.copytree(template, tmp_path / "home")
        with DagsterInstance.from_config(str(write_home(home, config))) as instance:
            launcher = instance.run_launcher
            assert isinstance(launcher, RunyardRunLauncher)
            return launcher

    return make


def test_no_setting_is_needed(new_launcher: NewLauncher) -> None:
    settings = new_launcher({}).settings
    assert settings.address == "127.0.0.1:7171"
    assert settings.deployment == "default"
    assert settings.launch_timeout == 30
    assert settings.request_timeout == 10
    assert settings.reporter is True
    assert settings.tls is None
    assert (settings.cluster, settings.grace, settings.stop_after) == (None, None, None)


def test_every_setting_may_come_from_the_environment(
    new_launcher: NewLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "address": "unix:/run/cluster",
        "deployment": "night",
        "cluster": "gpu",
        "launch_timeout_seconds": "5",
        "request_timeout_seconds": "2.5",
        "grace_seconds": "0",
        "max_queue_seconds": "3600",
        "start_timeout_seconds": "60",
        "on_disconnect": "stop_after=5m",
        "reporter": "false",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"SITE_{name.upper()}", value)
    config: dict[str, object] = {name: {"env": f"SITE_{name.upper()}"} for name in values}
    config["tls"] = {part: {"env": "SITE_CLUSTER"} for part in ("authority", "certificate", "key")}
    config |= {"labels": {"zone": {"env": "SITE_CLUSTER"}}, "env_vars": [{"env": "SITE_DEPLOYMENT"}]}
    settings = new_launcher(config).settings
    assert settings.address == "unix:/run/cluster"
    assert settings.tls == TlsFiles(Path("gpu"), Path("gpu"), Path("gpu"))
    assert settings.deployment == "night"
    assert settings.cluster == "gpu"
    assert (settings.launch_timeout, settings.request_timeout) == (5, 2.5)
    assert (settings.grace, settings.max_queue, settings.start_timeout) == (0, 3600, 60)
    assert settings.stop_after == 300
    assert settings.reporter is False
    assert settings.labels == {"zone": "gpu"}
    assert settings.env_vars == ["night"]


def test_a_variable_that_only_the_control_plane_has_does_not_hurt_until_it_is_needed(
    new_launcher: NewLauncher,
) -> None:
    launcher = new_launcher({"address": {"env": "SITE_NEVER_SET"}})
    assert launcher.supports_resume_run  # all that a run worker asks for
    with pytest.raises(InvalidLauncherConfig, match=r"config\.address .* SITE_NEVER_SET, .* Set SITE_NEVER"):
        _ = launcher.settings


@pytest.mark.parametrize(
    "config",
    [
        {"adress": "127.0.0.1:7171"},
        {"labels": "zone=a"},
        {"env_vars": "KEY"},
        {"reporter": "maybe"},
        {"launch_timeout_seconds": "long"},
    ],
)
def test_dagster_refuses_a_config_of_another_shape(
    new_launcher: NewLauncher, config: dict[str, object]
) -> None:
    with pytest.raises(DagsterInvalidConfigError):
        new_launcher(config)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"launch_timeout_seconds": 0}, r"launch_timeout_seconds is 0\..*from 0\.1"),
        ({"request_timeout_seconds": -1}, "request_timeout_seconds is -1"),
        ({"grace_seconds": -0.5}, "grace_seconds is -0.5"),
        ({"max_queue_seconds": 1e30}, "max_queue_seconds is 1e"),
        ({"on_disconnect": "forget"}, "on_disconnect is 'forget'.*keep"),
        ({"deployment": " "}, "deployment is empty"),
        ({"cluster": ""}, "cluster is empty"),
        ({"start_timeout_seconds": {"env": "SITE_WORD"}}, "start_timeout_seconds is 'soon'"),
        ({"reporter": {"env": "SITE_WORD"}}, "reporter is 'soon'.*true or false"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(
    new_launcher: NewLauncher,
    config: dict[str, object],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SITE_WORD", "soon")
    launcher = new_launcher(config)
    with pytest.raises(InvalidLauncherConfig, match=complaint):
        _ = launcher.settings


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"address": "http://cluster:7171"}, InvalidAddress),
        ({"address": "cluster.example:7171"}, InsecureAddress),
    ],
)
def test_an_address_that_cannot_be_dialled_is_refused_when_it_is_first_used(
    new_launcher: NewLauncher, config: dict[str, object], error: type[RunyardError]
) -> None:
    with pytest.raises(error):
        new_launcher(config).open_client()


def test_certificates_are_passed_on(new_launcher: NewLauncher, tmp_path: Path) -> None:
    tls = tls_settings(Authority().holder(tmp_path / "tls", CLIENT))
    with new_launcher({"address": "cluster.example:7171", "tls": tls}).open_client() as client:
        assert client.address == "cluster.example:7171"


def test_certificates_that_are_not_there_are_named(new_launcher: NewLauncher, tmp_path: Path) -> None:
    tls = dict.fromkeys(("authority", "certificate", "key"), str(tmp_path / "none.pem"))
    with pytest.raises(InvalidTlsFiles, match=r"tls\.authority: .*none\.pem cannot be read"):
        new_launcher({"address": "cluster.example:7171", "tls": tls}).open_client()


def test_environment_entries_copy_or_set_variables() -> None:
    resolved = resolve_environment(["A", "B=x=y", "C="], {"A": "1", "B": "2"})
    assert resolved.values == {"A": "1", "B": "x=y", "C": ""}
    assert resolved.references == {}


def test_entries_may_say_where_the_node_finds_the_value() -> None:
    entries = ["A@env:B", "C@file:/run/secrets/c=d", "E=env:F", "G=file:/g", "H=x@env:y"]
    resolved = resolve_environment(entries, {})
    assert resolved.references == {"A": FromEnvironment("B"), "C": FromFile("/run/secrets/c=d")}
    assert resolved.values == {"E": "env:F", "G": "file:/g", "H": "x@env:y"}


@pytest.mark.parametrize(
    "entry", ["A@env:", "A@env:B C", "A@file:", "A@file:b", "A@file:/a/../b", "A@file:/a//b"]
)
def test_an_entry_that_refers_to_nothing_is_refused(entry: str) -> None:
    with pytest.raises(InvalidLauncherConfig, match=r"env_vars\[0\] is malformed"):
        resolve_environment([entry], {})


@pytest.mark.parametrize("entry", ["", "=x", "NEVER_SET"])
def test_an_environment_entry_that_cannot_be_resolved_is_named(entry: str) -> None:
    with pytest.raises(InvalidLauncherConfig, match=r"env_vars\[0\]"):
        resolve_environment([entry], {})
