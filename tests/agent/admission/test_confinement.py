"""Limits, user and scratch directory of a worker process."""

import getpass
from pathlib import Path

import pytest

from runyard.agent.admission.confinement import confined
from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.node.isolation_backends import WATCHDOG_ONLY, IsolationBackend
from runyard.agent.supervisor.limits.plan import CGROUP_2, WATCHDOG, LimitsPlan, plan_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.common.service.settings import SettingsError
from runyard.common.service.settings_sources import load_settings
from runyard.v1 import placement_pb2, run_pb2

KEY = AttemptKey("run-a", 2)
HOME = Path("/sys/fs/cgroup/runyard-1")
GROUPED = IsolationBackend(CGROUP_2, (HOME,))


def plan(backend: IsolationBackend, isolation: str = "", **resources: int) -> LimitsPlan | None:
    """The limits of a run that asks for this."""
    requirements = placement_pb2.Requirements(isolation=isolation, resources={"slots": 1, **resources})
    spec = run_pb2.LaunchSpec(requirements=requirements)
    return plan_of(confined(SpecRecord([], {}), KEY, spec, IsolationSettings(), backend).limits)


def test_who_asks_for_nothing_has_no_limit() -> None:
    assert plan(GROUPED) is None
    assert plan(GROUPED, "require") is None


def test_what_is_asked_for_becomes_the_limit() -> None:
    assert plan(GROUPED, memory=1 << 30, cpu=1500) == LimitsPlan(
        CGROUP_2, 1 << 30, 1500, (f"{HOME}/run-a-2",), required=False
    )
    assert plan(WATCHDOG_ONLY, memory=1 << 30) == LimitsPlan(WATCHDOG, 1 << 30)


def test_who_wants_no_isolation_has_no_limit() -> None:
    assert plan(GROUPED, "none", memory=1 << 30) is None


def test_isolation_that_is_required_is_given_or_refused() -> None:
    found = plan(GROUPED, "require", memory=1 << 30)
    assert found is not None
    assert found.required
    with pytest.raises(UnusableLaunch, match="isolation is required, and this node has no control groups"):
        plan(WATCHDOG_ONLY, "require", memory=1 << 30)


def test_a_mode_that_this_agent_does_not_know_is_refused() -> None:
    with pytest.raises(UnusableLaunch, match="isolation 'vault' is not known to this agent"):
        plan(GROUPED, "vault")


def test_the_user_is_that_of_the_code_location_and_the_scratch_directory_that_of_the_attempt() -> None:
    me = getpass.getuser()
    settings = IsolationSettings(run_as={"shop": me}, users=(me,), scratch_directory=Path("/scratch"))
    spec = run_pb2.LaunchSpec(code_origin=run_pb2.CodeOrigin(location="shop"))
    found = confined(SpecRecord([], {}), KEY, spec, settings, WATCHDOG_ONLY)
    assert (found.run_as, found.scratch) == (me, "/scratch/run-a-2")
    assert (found.no_new_privs, found.core_dumps) == (True, False)
    assert confined(SpecRecord([], {}), KEY, run_pb2.LaunchSpec(), settings, WATCHDOG_ONLY).run_as == ""


def test_a_user_who_is_not_there_is_refused_before_anything_starts() -> None:
    settings = IsolationSettings(run_as={"*": "nobody-knows"}, users=("nobody-knows",))
    with pytest.raises(UnusableLaunch, match="user nobody-knows \\(run_as\\) does not exist on this node"):
        confined(SpecRecord([], {}), KEY, run_pb2.LaunchSpec(), settings, WATCHDOG_ONLY)


def test_settings_name_no_user_who_is_not_allowed(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("isolation: {run_as: {shop: root}, users: [etl]}")
    with pytest.raises(SettingsError, match="run_as names root for shop; allow it by adding it to users"):
        load_settings(AgentSettings, file=file, prefix="NONE", flags={})
