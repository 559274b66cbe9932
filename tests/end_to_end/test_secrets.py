"""Secrets are planted in a whole deployment, and then looked for wherever they must not be."""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from end_to_end.support.drivers import driver_under_test, processes_only
from end_to_end.support.stage import FAILURE, NODE, SUCCESS, ProvingGround, Stage
from harness.deployment import open_deployment
from harness.waiting import wait_until

from runyard.cli.app import run_command
from runyard.v1 import run_pb2

IN_VARIABLE = "canary-variable-7d1c"
IN_URL = "canary-url-90ab"
ON_NODE = "canary-node-41fe"
IN_FILE = "canary-file-c3d8"
IN_CONFIG = "canary-config-6b20"

URL = f"postgresql://me:{IN_URL}@db.example/x"
ALL = (IN_VARIABLE, IN_URL, ON_NODE, IN_FILE, IN_CONFIG)
NEVER_LEFT_THE_NODE = (ON_NODE, IN_FILE)

OWN_WORDS = ("stdout", "stderr")
"""What the worker writes is its own business."""

COMMANDS = (
    ("run", "list"),
    ("node", "list"),
    ("node", "show", NODE),
    ("node", "warm", "list"),
    ("cluster", "list"),
)


@dataclass(frozen=True)
class Vault:
    """A deployment with planted secrets."""

    stage: Stage
    rules: str
    """What launches may refer to on the node."""

    def start_agent(self, **variables: str) -> None:
        """Starts the agent with further variables in its environment."""
        with mock.patch.dict(os.environ, RUNYARD_AGENT_REFERENCES=self.rules, **variables):
            self.stage.cluster.start_agent(NODE, "default")

    @property
    def folder(self) -> Path:
        return self.stage.deployment.folder

    def launch(self, job: str) -> str:
        """Launches a job of the vault, and returns the ID of its run."""
        run = self.stage.site.create_run(job, run_config=self.config(job))
        return self.stage.site.submit(run)

    def config(self, job: str) -> dict[str, Any]:
        op = {"silent": "keep_silent", "blurting": "blurt_out", "stumbling": "stumble"}[job]
        return {"ops": {op: {"config": {"password": IN_CONFIG}}}}

    def wait_until_given(self, run_id: str) -> None:
        """Waits until the op has begun, and makes sure that it was given everything."""
        path = self.stage.ground.folder / f"digest-{run_id}"
        wait_until(path.exists, lambda: self.stage.describe(run_id), timeout=60)
        given = (IN_VARIABLE, URL, ON_NODE, IN_FILE, IN_CONFIG)
        assert json.loads(path.read_text()) == [hashlib.sha256(value.encode()).hexdigest() for value in given]

    def files_of(self, part: str) -> list[Path]:
        """Files in the state directory of the coordinator or the node, but for the workers' own words."""
        return [
            path for path in (self.folder / part).rglob("*") if path.is_file() and path.name not in OWN_WORDS
        ]

    def logs(self) -> list[Path]:
        """What our services and Dagster's daemon print."""
        return list((self.folder / "logs").iterdir())

    def wait_until_settled(self, run_id: str) -> None:
        """Waits until the node knows that the coordinator has the end."""
        attempts = self.folder / NODE / "runs" / run_id
        wait_until(lambda: any(attempts.glob("*/acknowledged")), lambda: self.stage.describe(run_id))


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    ground = tmp_path_factory.mktemp("project")
    shutil.copy(Path(__file__).parent / "project" / "vault.py", ground)
    secret_file = tmp_path_factory.mktemp("secrets") / "secret"
    secret_file.write_text(f"{IN_FILE}\n")
    variables = [
        f"PLANTED_PASSWORD={IN_VARIABLE}",
        f"PLANTED_URL={URL}",
        "FROM_NODE@env:HELD_BY_NODE",
        f"FROM_FILE@file:{secret_file}",
    ]
    with ExitStack() as stack:
        routing = stack.enter_context(driver_under_test(ground))
        deployment = stack.enter_context(
            open_deployment(project=ground, module="vault", launcher={"env_vars": variables}, routing=routing)
        )
        stage = Stage(deployment, ProvingGround(ground))
        rules = json.dumps({"env": ["HELD_BY_*"], "files": [f"{secret_file.parent}/*"]})
        vault = Vault(stage, rules)
        vault.start_agent(HELD_BY_NODE=ON_NODE)
        stage.site.start_daemon()
        yield vault


def found(paths: list[Path], secrets: tuple[str, ...] = ALL) -> list[str]:
    """Which secrets are in which of the files."""
    seen = []
    for path in paths:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone since it was listed
        seen += [f"{secret} in {path}" for secret in secrets if secret.encode() in content]
    return seen


def in_command_lines() -> list[str]:
    return found(list(Path("/proc").glob("[0-9]*/cmdline")))


def assert_commands_show_nothing(vault: Vault, *run_ids: str) -> None:
    about_runs = [("run", verb, run_id) for verb in ("show", "explain") for run_id in run_ids]
    for command in (*COMMANDS, *about_runs):
        for output in ("table", "json"):
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                code = run_command(["--address", vault.stage.cluster.address, "--output", output, *command])
            assert code == 0, shown.getvalue()
            assert shown.getvalue(), command
            assert [secret for secret in ALL if secret in shown.getvalue()] == [], command


def assert_nothing_is_left(vault: Vault, *run_ids: str) -> None:
    wait_until(lambda: not found(vault.files_of("coordinator")), lambda: found(vault.files_of("coordinator")))
    assert found(vault.files_of(NODE)) == []
    assert found(vault.logs()) == []
    assert in_command_lines() == []
    assert_commands_show_nothing(vault, *run_ids)


def audit_of(vault: Vault, run_id: str) -> list[tuple[str, str]]:
    path = vault.folder / "coordinator" / "audit.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["action"], line["outcome"]) for line in lines if line.get("run") == run_id]


def test_secrets_of_a_good_run_are_seen_nowhere_while_it_runs_nor_afterwards(vault: Vault) -> None:
    run_id = vault.launch("silent")
    vault.wait_until_given(run_id)
    vault.stage.wait_for_phase(run_id, run_pb2.PHASE_RUNNING)
    # While it runs, the coordinator keeps what travels: it may be placed once more. The node needs nothing.
    assert found(vault.files_of("coordinator"), (IN_VARIABLE,)) != []
    assert found(vault.files_of("coordinator"), (*NEVER_LEFT_THE_NODE, IN_CONFIG)) == []
    wait_until(lambda: not found(vault.files_of(NODE)), lambda: found(vault.files_of(NODE)))
    assert in_command_lines() == []
    assert found(vault.logs()) == []
    assert_commands_show_nothing(vault, run_id)
    vault.stage.ground.release(run_id)
    vault.stage.wait_for_status(run_id, SUCCESS)
    vault.wait_until_settled(run_id)
    assert_nothing_is_left(vault, run_id)
    assert audit_of(vault, run_id) == [("run.launch", "done")]


def test_the_last_words_of_a_crashed_worker_reach_dagster_without_its_secrets(vault: Vault) -> None:
    run_id = vault.launch("blurting")
    vault.stage.wait_for_status(run_id, FAILURE)
    vault.wait_until_settled(run_id)
    outcome = vault.stage.wait_for_end(run_id)
    assert "last words: ***" in outcome.stderr_tail
    assert "(the end)" in outcome.stderr_tail
    history = vault.stage.history(run_id)
    assert "last words: ***" in history
    assert [secret for secret in ALL if secret in history] == []
    assert_nothing_is_left(vault, run_id)


def test_a_secret_in_an_exception_goes_no_further_than_the_worker_carries_it(vault: Vault) -> None:
    run_id = vault.launch("stumbling")
    vault.stage.wait_for_status(run_id, FAILURE)
    vault.wait_until_settled(run_id)
    vault.stage.wait_for_end(run_id)
    assert_nothing_is_left(vault, run_id)


def test_a_refused_launch_shows_no_secret(vault: Vault) -> None:
    site = vault.stage.site
    run = site.create_run("silent", run_config=vault.config("silent"), tags={"runyard/memory": "plenty"})
    site.submit(run)
    vault.stage.wait_for_status(run.run_id, FAILURE)
    history = vault.stage.history(run.run_id)
    assert "is not an amount of memory" in history
    assert [secret for secret in ALL if secret in history] == []
    assert_nothing_is_left(vault)
    assert audit_of(vault, run.run_id) == [("run.launch", "refused")]


@processes_only
def test_the_last_words_are_masked_by_an_agent_that_never_knew_the_secrets(vault: Vault) -> None:
    run_id = vault.launch("silent")
    vault.wait_until_given(run_id)
    run = vault.stage.wait_for_phase(run_id, run_pb2.PHASE_RUNNING)
    wait_until(lambda: not found(vault.files_of(NODE)), lambda: found(vault.files_of(NODE)))
    vault.stage.deployment.processes.kill(vault.stage.cluster.agents[NODE])
    stderr = vault.folder / NODE / "runs" / run_id / str(run.attempt) / "stderr"
    with stderr.open("a") as file:
        file.write(f"the password is {IN_VARIABLE}, and that of the file {IN_FILE}\n")
    os.kill(run.pid, 9)
    vault.start_agent()
    vault.stage.wait_for_status(run_id, FAILURE)
    outcome = vault.stage.wait_for_end(run_id)
    assert "the password is ***, and that of the file ***" in outcome.stderr_tail
    assert_nothing_is_left(vault, run_id)


@processes_only
def test_a_run_whose_secret_is_not_on_the_node_fails_with_the_names_of_both(vault: Vault) -> None:
    vault.stage.deployment.processes.stop(vault.stage.cluster.agents[NODE])
    vault.start_agent()
    run_id = vault.launch("silent")
    vault.stage.wait_for_status(run_id, FAILURE)
    history = vault.stage.history(run_id)
    assert f"environment variable FROM_NODE refers to env:HELD_BY_NODE, which node {NODE} lacks" in history
    assert not (vault.stage.ground.folder / f"digest-{run_id}").exists()
