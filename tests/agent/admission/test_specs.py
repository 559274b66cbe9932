"""From a launch to what the run directory needs: whose interpreter, directory and environment count."""

import json
import sys
from typing import Any

import pytest

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.admission.specs import build_spec_record
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import LaunchIdentity
from runyard.agent.spec_record.identities import recorded_identity
from runyard.agent.supervisor import worker
from runyard.agent.supervisor.records import SpecRecord
from runyard.v1 import placement_pb2, run_pb2

RUN_ID = "00000000-0000-4000-8000-000000000001"
IDENTITY = LaunchIdentity(resume_number=2, deployment="shop", job="orders", location="shop.py")


def launch(**fields: Any) -> run_pb2.LaunchSpec:
    spec = run_pb2.LaunchSpec(
        run_id=RUN_ID,
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args='{"secret": 1}',
        code_origin=run_pb2.CodeOrigin(location="shop.py"),
    )
    spec.MergeFrom(run_pb2.LaunchSpec(**fields))
    return spec


def record(
    spec: run_pb2.LaunchSpec, own_environment: dict[str, str] | None = None, **settings: Any
) -> SpecRecord:
    return build_spec_record(AgentSettings(**settings), IDENTITY, spec, own_environment or {})


@pytest.mark.parametrize(
    ("kind", "verb"),
    [(run_pb2.LAUNCH_KIND_EXECUTE, "execute_run"), (run_pb2.LAUNCH_KIND_RESUME, "resume_run")],
    ids=["execute", "resume"],
)
def test_worker_is_started_with_the_verb_of_the_launch_and_the_run_for_people_to_see(
    kind: run_pb2.LaunchKind.ValueType, verb: str
) -> None:
    assert record(launch(kind=kind)).argv == [sys.executable, worker.__file__, verb, RUN_ID]


def test_launch_of_a_kind_that_is_not_known_is_refused_with_the_remedy() -> None:
    spec = launch()
    spec.kind = 9  # type: ignore[assignment]
    with pytest.raises(UnusableLaunch, match="launch kind 9 is not known to this agent; upgrade it"):
        record(spec)


@pytest.mark.parametrize(
    ("settings", "executable", "expected"),
    [
        ({}, "", sys.executable),
        ({"python": "/agent/python"}, "", "/agent/python"),
        ({"python": "/agent/python"}, "/launch/python", "/launch/python"),
        ({"interpreters": {"shop.py": "/node/python"}}, "/launch/python", "/node/python"),
        ({"interpreters": {"other.py": "/node/python"}}, "/launch/python", "/launch/python"),
    ],
    ids=[
        "the agent's own",
        "the agent's setting",
        "the launch's",
        "this node's for the location",
        "not another's",
    ],
)
def test_interpreter_is(settings: dict[str, Any], executable: str, expected: str) -> None:
    spec = launch(code_origin=run_pb2.CodeOrigin(executable=executable))
    assert record(spec, **settings).argv[0] == expected


@pytest.mark.parametrize(
    ("setting", "given", "expected"),
    [("", "", ""), ("/agent", "", "/agent"), ("/agent", "/launch", "/launch")],
    ids=["the agent's own", "the agent's setting", "the launch's"],
)
def test_working_directory_is(setting: str, given: str, expected: str) -> None:
    spec = launch(code_origin=run_pb2.CodeOrigin(working_directory=given))
    assert record(spec, working_directory=setting).cwd == expected


def test_environment_of_the_launch_wins_over_the_settings_and_those_over_the_agents_own() -> None:
    own = {"HOME": "own", "LANG": "own", "TZ": "own"}
    settings = {"LANG": "setting", "TZ": "setting", "EXTRA": "setting"}
    spec = launch(environment={"TZ": "launch", "MORE": "launch"})
    assert record(spec, own, environment=settings).env == {
        "HOME": "own",
        "LANG": "setting",
        "TZ": "launch",
        "EXTRA": "setting",
        "MORE": "launch",
    }


def test_secrets_in_the_agents_own_environment_do_not_reach_the_worker() -> None:
    own = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "hush", "RUNYARD_AGENT_NODE_ID": "a"}
    assert record(launch(), own).env == {"PATH": "/bin"}


def test_operator_may_pass_on_other_variables() -> None:
    own = {"PATH": "/bin", "AWS_PROFILE": "data"}
    assert record(launch(), own, inherit_environment=["AWS_PROFILE", "NOT_SET"]).env == {
        "AWS_PROFILE": "data"
    }


def test_arguments_of_the_worker_travel_apart_from_command_and_environment() -> None:
    made = record(launch())
    assert made.worker_args == '{"secret": 1}'
    assert "secret" not in json.dumps([made.argv, made.env])


def test_launch_can_be_told_again_from_the_record() -> None:
    requirements = placement_pb2.Requirements(
        driver="process",
        labels=["zone=a"],
        resources={"cpu": 1500, "memory": 1 << 40},
        preferences=[placement_pb2.Preference(label="spot", weight=2)],
    )
    identity = LaunchIdentity(2, "shop", "orders", "shop.py", requirements)
    made = build_spec_record(AgentSettings(), identity, launch())
    assert recorded_identity(SpecRecord.decode(made.encode()).identity) == identity


@pytest.mark.parametrize("requirements", [{}, {"requirements": {"resources": {"cpu": "many"}, "new": 1}}])
def test_record_of_another_version_is_told_again_as_far_as_it_can_be_read(requirements: Any) -> None:
    identity = recorded_identity({"resume_number": 2, "job": "orders", **requirements})
    assert identity == LaunchIdentity(2, "", "orders", "")


@pytest.mark.parametrize(("asked", "expected"), [("", "process"), ("docker", "docker")])
def test_driver_is_the_one_asked_for_or_process(asked: str, expected: str) -> None:
    assert record(launch(requirements=placement_pb2.Requirements(driver=asked))).driver == expected
