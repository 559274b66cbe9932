"""The launcher signs, the node requires it: what anybody altered on the way is not run, and Dagster says why.

The coordinator is in the hands of somebody else here: its database is altered while it is down.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.support.drivers import processes_only
from end_to_end.support.stage import FAILURE, NODE, SUCCESS, Stage, kill, open_stage
from harness.dagster_site import LAUNCH_IN_THE_CALLER
from harness.waiting import wait_until

from runyard.cli.main import main
from runyard.common.security.signing import PRIVATE_KEY, PUBLIC_KEY, SigningKey, read_signing_key
from runyard.v1 import run_pb2

pytestmark = processes_only

MONITORING = {
    "run_monitoring": {"enabled": True, "poll_interval_seconds": 1, "max_resume_run_attempts": 1},
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    assert main(["signing-key", "create", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def stage(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    launcher = {"signing_key": str(keys / PRIVATE_KEY), "env_vars": ["SHOP_MODE=night"]}
    agent = {"signatures": "require", "signing_keys": [str(keys / PUBLIC_KEY)]}
    with open_stage(
        tmp_path_factory.mktemp("project"), {**LAUNCH_IN_THE_CALLER, **MONITORING}, launcher, agent
    ) as stage:
        yield stage


def test_a_run_that_its_launcher_signed_is_run(stage: Stage) -> None:
    run_id = stage.launch("succeed")
    stage.wait_for_status(run_id, SUCCESS)
    assert len(stage.ground.starts(run_id)) == 1


def test_a_run_is_resumed_where_signatures_are_required(stage: Stage) -> None:
    daemon = stage.site.start_daemon()
    run_id = stage.launch_busy()
    kill(stage.worker(run_id).pid)
    wait_until(
        lambda: stage.cluster.run(run_id).resume_number == 1, lambda: stage.describe(run_id), timeout=60
    )
    stage.ground.release(run_id)
    stage.wait_for_status(run_id, SUCCESS)
    stage.deployment.processes.stop(daemon)


# Altered launches


def with_environment(spec: run_pb2.LaunchSpec) -> None:
    spec.environment["SHOP_MODE"] = "day"


def with_arguments(spec: run_pb2.LaunchSpec) -> None:
    spec.worker_args = spec.worker_args.replace("proving_ground", "evil_ground")


def with_interpreter(spec: run_pb2.LaunchSpec) -> None:
    spec.code_origin.executable = "/bin/sh"


def with_payload(spec: run_pb2.LaunchSpec) -> None:
    with_environment(spec)
    statement = run_pb2.LaunchStatement.FromString(spec.signed.payload)
    with_environment(statement.spec)
    spec.signed.payload = statement.SerializeToString()


def without_signature(spec: run_pb2.LaunchSpec) -> None:
    spec.ClearField("signed")


def with_another_key(spec: run_pb2.LaunchSpec) -> None:
    spec.signed.key_id = "0123456789abcdef"


def signed_long_ago(spec: run_pb2.LaunchSpec, key: SigningKey) -> None:
    statement = run_pb2.LaunchStatement.FromString(spec.signed.payload)
    statement.signed_at.FromSeconds(int(time.time()) - 7200)
    statement.expires_at.FromSeconds(int(time.time()) - 3600)
    sign_again(spec, key, statement.SerializeToString())


def signed_with_an_unknown_field(spec: run_pb2.LaunchSpec, key: SigningKey) -> None:
    unknown_field_99 = b"\x9a\x06\x04news"
    sign_again(spec, key, spec.signed.payload + unknown_field_99)


def sign_again(spec: run_pb2.LaunchSpec, key: SigningKey, payload: bytes) -> None:
    spec.signed.payload = payload
    spec.signed.signature = key.sign(payload)


ALTERED: dict[str, tuple[Callable[[run_pb2.LaunchSpec], None], str]] = {
    "another environment": (with_environment, "it is not what was signed: environment altered on the way"),
    "other arguments": (with_arguments, "it is not what was signed: worker_args altered on the way"),
    "another interpreter": (with_interpreter, "it is not what was signed: code_origin altered on the way"),
    "altered all over": (with_payload, "its signature does not match"),
    "no signature": (without_signature, "it is not signed"),
    "an unknown key": (with_another_key, "it is signed with the key '0123456789abcdef'"),
}
SIGNED_SO: dict[str, tuple[Callable[[run_pb2.LaunchSpec, SigningKey], None], str]] = {
    "an old signature": (signed_long_ago, "its signature expired 36"),
    "an unknown field": (signed_with_an_unknown_field, "what was signed has unknown field 99"),
}
SWAPPED = "signed for another run"


@pytest.fixture(scope="module")
def refused(stage: Stage, keys: Path) -> dict[str, str]:
    """What each run was altered to, and its ID; and one that nobody touched."""
    stage.cluster.client.cordon_node(NODE)
    runs = {name: stage.launch("succeed") for name in ("untouched", *ALTERED, *SIGNED_SO, SWAPPED)}
    stage.deployment.processes.stop(stage.cluster.coordinator)
    database = stage.deployment.folder / "coordinator" / "coordinator.db"
    key = read_signing_key(keys / PRIVATE_KEY)
    with sqlite3.connect(database) as connection:
        specs = {name: stored(connection, run_id) for name, run_id in runs.items()}
        for name, (alter, _) in ALTERED.items():
            alter(specs[name])
        for name, (sign, _) in SIGNED_SO.items():
            sign(specs[name], key)
        specs[SWAPPED].signed.CopyFrom(specs["untouched"].signed)
        for name, spec in specs.items():
            row = (spec.SerializeToString(), runs[name])
            connection.execute("update runs set spec = ? where run_id = ?", row)
    connection.close()
    stage.cluster.start_coordinator()
    stage.cluster.client.uncordon_node(NODE)
    return runs


def stored(connection: sqlite3.Connection, run_id: str) -> run_pb2.LaunchSpec:
    (data,) = connection.execute("select spec from runs where run_id = ?", (run_id,)).fetchone()
    return run_pb2.LaunchSpec.FromString(data)


def test_a_signed_run_outlives_the_coordinator_that_took_it(stage: Stage, refused: dict[str, str]) -> None:
    stage.wait_for_status(refused["untouched"], SUCCESS)


@pytest.mark.parametrize(
    ("name", "why"),
    [(name, why) for name, (_, why) in (ALTERED | SIGNED_SO).items()]
    + [(SWAPPED, "it was signed for another run")],
)
def test_what_was_altered_is_not_run_and_dagster_says_why(
    stage: Stage, refused: dict[str, str], name: str, why: str
) -> None:
    run_id = refused[name]
    stage.wait_for_status(run_id, FAILURE)
    assert f"This node takes signed launches only: {why}" in stage.failure(run_id)
    assert stage.ground.starts(run_id) == []
