"""Recorder of the files that version 0.1.0 writes, and of the values that it reads from them.

Kept to document how `v0_1_0/` was made. It imports the modules of 0.1.0, so it only works in the tree of
commit ae174ce, as root, after `pip install -e . --group dev` there. Copy this folder and
`tests/compatibility` into that tree, both as of the last commit that changed `v0_1_0/` (the
`readers.py` of later commits imports the modules of later versions), and run:

    PYTHONPATH=tests:. python tests/recorded/record_0_1_0.py [settings|directories|database|messages|output]

To record another version, copy this file under that version's name, adapt it to that version's modules, write
to a folder of that version, and have the tests read both folders. A recorded folder never changes.

Settings files are written by hand; this checks that no setting is missing. The rest is made by 0.1.0's own
code. Boot IDs and the paths of Python and of the folder are replaced by neutral ones.
"""

# ruff: noqa: ASYNC110, ASYNC240, I001  (I001: the order of 0.1.0's modules, whichever of them exist here)

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from agent.node_side import Node
from agent.warm_side import WarmBench
from compatibility import readers
from coordinator.accounts import OUTCOME, PLACE, in_every_phase, make_node
from google.protobuf.message import Message
from pydantic import BaseModel

from runyard.agent import procfs, wire
from runyard.agent.config import AgentSettings
from runyard.agent.contact import ContactFile
from runyard.agent.core.effects import Reject
from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.outcomes import held_attempt
from runyard.agent.endings import never_started
from runyard.agent.identities import identity_record
from runyard.agent.installation import Installation
from runyard.agent.limits.plan import LimitsPlan
from runyard.agent.records import ContainerRecord, ExitRecord, SpecRecord, StopRequest
from runyard.agent.rundir import RunDirectories
from runyard.client.service.settings import load_settings
from runyard.client.service.signing import SigningKey
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.core.asks.requirements import Policies
from runyard.coordinator.core.effects import SaveNode, SaveRun, SaveTombstone
from runyard.coordinator.core.model import Cordoned, Draining, Finished, Tombstone
from runyard.coordinator.routing_file.schema import RoutingPart
from runyard.coordinator.security.revocations import CertificateRevocation, NodeRevocation
from runyard.coordinator.security.tokens import Token
from runyard.coordinator.store import credentials
from runyard.coordinator.store.store import Store
from runyard.launcher.config import SCHEMA
from runyard.launcher.signing import signed
from runyard.v1 import agent_pb2, run_pb2

HERE = Path(__file__).parent / "v0_1_0"
FOLDER = Path("/tmp/runyard-recorded")
STATE = FOLDER / "agent"
BOOT_ID = "00000000-1111-4222-8333-444444444444"
ENVIRONMENT = {
    "RUNYARD_ADDRESS": "coordinator.example:7272",
    "RUNYARD_KEY": "/etc/runyard/key.pem",
    "TIER": "gold",
}
NOW = 1_700_000_000.0


def write_json(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


# Settings


def record_settings() -> None:
    agent = load_settings(AgentSettings, file=HERE / "agent.yaml", prefix="X", flags={}, environment={})
    coordinator = load_settings(
        CoordinatorSettings, file=HERE / "coordinator.yaml", prefix="X", flags={}, environment={}
    )
    require_all(agent, ("docker.allow", "policy.profiles[1]", "docker.registries"))
    require_all(coordinator, ("access.clients",))
    routing = yaml.safe_load((HERE / "routing.yaml").read_text())
    assert set(routing) == set(RoutingPart.model_fields), set(RoutingPart.model_fields) - set(routing)
    launcher = yaml.safe_load((HERE / "dagster.yaml").read_text())["run_launcher"]["config"]
    assert set(launcher) == set(SCHEMA), set(SCHEMA) - set(launcher)
    write_json(
        "settings.json",
        {
            "agent.yaml": readers.read_agent_settings(HERE / "agent.yaml"),
            "agent_docker_allow.yaml": {
                key: value
                for key, value in readers.read_agent_settings(HERE / "agent_docker_allow.yaml").items()
                if key in ("node_id", "signatures", "docker")
            },
            "coordinator.yaml": readers.read_coordinator_settings(HERE / "coordinator.yaml"),
            "routing.yaml": readers.read_routing(HERE / "routing.yaml"),
            "dagster.yaml": readers.read_launcher_settings(launcher, ENVIRONMENT),
        },
    )
    write_json("environment.json", ENVIRONMENT)


def require_all(model: BaseModel, besides: tuple[str, ...], path: str = "") -> None:
    """Every setting must be in the file."""
    missing = set(type(model).model_fields) - model.model_fields_set
    for name in type(model).model_fields:
        value, here = getattr(model, name), f"{path}{name}"
        if here in besides:
            continue
        assert name not in missing, here
        parts = value if isinstance(value, tuple) else [value]
        for number, part in enumerate(parts):
            mine = f"{here}[{number}]" if isinstance(value, tuple) else here
            if isinstance(part, BaseModel) and mine not in besides:
                require_all(part, besides, f"{mine}.")


# Run directories


def identity(**others: Any) -> dict[str, Any]:
    spec = full_spec()
    return {**identity_record(wire.identity_of(spec)), **others}


async def record_directories() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    installation = Installation(STATE)
    installation.note_epoch(7)
    ContactFile(STATE).write(procfs.boottime())
    directories = RunDirectories(STATE)
    node = Node(directories)
    await node.driver.open()

    def spec(script: str, **fields: Any) -> SpecRecord:
        env = {"PATH": "/usr/bin:/bin", "TOKEN": "made-up-token"}
        worker = SpecRecord(
            ["/bin/sh", "-c", script], env, cwd="/tmp", worker_args='{"made": "up"}', identity=identity()
        )
        return replace(worker, secret_names=["TOKEN"], **fields)

    async def ended(key: AttemptKey, worker: SpecRecord) -> None:
        await node.start(worker, key)
        await node.outcome(key)

    await ended(AttemptKey("succeeded", 1), spec("echo done; echo on stderr >&2"))
    await ended(AttemptKey("failed", 1), spec("echo 'cannot open the wärehouse' >&2; exit 3"))
    await ended(AttemptKey("failed", 2), spec("exit 4", stop_after=120.0, grace_seconds=5.5))
    await ended(AttemptKey("missing", 1), replace(spec(""), argv=["/nowhere/python", "worker.py"]))
    await ended(AttemptKey("settled", 1), spec("exit 0"))
    settled = directories.open(AttemptKey("settled", 1))
    assert settled is not None
    settled.acknowledge()

    limits = LimitsPlan("watchdog", memory=64 << 20, cpu=500).as_record()
    eat = "x=a; while :; do x=$x$x; done"
    await ended(AttemptKey("over-limit", 1), spec(eat, limits=limits))
    await ended(
        AttemptKey("everything", 1),
        spec(
            "exit 0",
            run_as="nobody",
            no_new_privs=True,
            core_dumps=False,
            gpus=["GPU-1", "1"],
            grace_seconds=2.5,
        ),
    )

    key = AttemptKey("killed", 1)
    await node.start(spec("sleep 600"), key)
    os.kill((await node.running(key)).pid, signal.SIGKILL)
    await node.outcome(key)

    key = AttemptKey("stopped", 1)
    await node.start(spec("sleep 600"), key)
    await node.running(key)
    await node.driver.stop(key, 2.0, "by alice")
    await node.outcome(key)

    key = AttemptKey("stopped-before", 1)
    directories.create(key, spec("exit 0"))
    await node.driver.stop(key, 10.0, "changed my mind")
    await node.outcome(key)

    directories.create_refused(
        AttemptKey("born-finished", 1), never_started("stopped", "stopped before it came")
    )
    directories.create(AttemptKey("accepted", 1), spec("exit 0"))
    never = directories.create(AttemptKey("never-ran", 1), spec("exit 0"))
    never.mark_starting()

    bench = WarmBench(directories, FOLDER)
    plan = bench.plan("print('warm')")
    await bench.open(plan)
    warm = await bench.start(plan)
    assert (await bench.ended(warm)).code == 0

    record_container(directories)
    for name in ("live", "stopping"):
        key = AttemptKey(name, 1)
        await node.start(spec("trap '' TERM; echo up; while :; do sleep 0.05; done"), key)
        await node.running(key)
    await node.driver.stop(AttemptKey("stopping", 1), 60.0, "by bob")
    while (found := directories.open(AttemptKey("stopping", 1))) is None or found.read_stop() is None:
        await asyncio.sleep(0.05)
    to = HERE / "agent"
    shutil.rmtree(to, ignore_errors=True)
    copy_neutral(STATE, to)
    statuses = {each.mark: wire.status_of(held_attempt(each)) for each in directories.scan()}
    write_json("statuses.json", [entry(f"status of {name}", status) for name, status in statuses.items()])
    for name in ("live", "stopping"):
        await node.driver.stop(AttemptKey(name, 1), 0.0, "recorded")
        await node.outcome(AttemptKey(name, 1))
    await node.driver.close()
    write_json("agent.json", expected_of(to))


def record_container(directories: RunDirectories) -> None:
    """The records of containers, made without an engine by what the Docker driver uses."""
    worker = SpecRecord(
        ["python", "worker.py"],
        {"TOKEN": "made-up-token"},
        identity=identity(),
        driver="docker",
        container={"image": "registry.example/shop:1", "networks": ["inner"], "volumes": ["cache:/cache"]},
        secret_names=["TOKEN"],
    )
    positions = {
        "stdout": {"stamp": "2023-11-14T22:13:20.123456789Z", "pieces": 2, "size": 6},
        "stderr": {"stamp": "", "pieces": 0, "size": 0},
    }
    for name in ("container-runs", "container-ended"):
        directory = directories.create(AttemptKey(name, 1), worker)
        directory.mark_starting()
        directory.write_container(ContainerRecord("c0ffee" * 10 + "c0fe", 4242, BOOT_ID))
        directory.stdout.write_text("hello\n")
        directory.stderr.write_text("")
        (directory.path / "output").write_text(json.dumps(positions))
        directory.forget_secrets()
    directory.request_stop(StopRequest(5.0, "by carol", NOW, why="lease_expired"))
    verdict = ExitRecord(
        "oom_killed",
        "killed for want of memory",
        NOW,
        signal=9,
        memory_limit_bytes=1 << 30,
        why="memory_limit",
    )
    directory.write_exit(replace(verdict, peak_rss_bytes=1 << 30, stop_requested=True))


def copy_neutral(source: Path, to: Path) -> None:
    """Copies a state directory, without what tells of this machine."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("warm", "*.log", "*.sock", "socket"))
    swaps = {
        procfs.boot_id(): BOOT_ID,
        sys.executable: "/opt/runyard/bin/python",
        os.environ["PATH"]: "/usr/bin:/bin",
        str(FOLDER): "/var/lib/runyard",
    }
    for path in to.rglob("*"):
        if path.is_file():
            text = path.read_text()
            for old, new in swaps.items():
                text = text.replace(old, new)
            if path.name == "exit":
                text = text.rstrip().ljust(8192)
            path.write_text(text)


def expected_of(state: Path) -> dict[str, Any]:
    """What 0.1.0 reads from a copy of what was recorded."""
    copy = FOLDER / "read"
    shutil.copytree(state, copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    read = {
        "attempts": readers.read_run_directories(copy),
        "installation": readers.read_installation(copy),
        "contact": readers.read_contact(copy),
    }
    shutil.rmtree(copy)
    return read


# The database


def record_database() -> None:
    shutil.rmtree(FOLDER / "coordinator", ignore_errors=True)
    store = Store(FOLDER / "coordinator")
    runs = in_every_phase()
    kinds = [kind for kind in run_pb2.OutcomeKind.values() if kind]
    for kind in kinds:
        name = run_pb2.OutcomeKind.Name(kind).removeprefix("OUTCOME_KIND_").lower()
        outcome = run_pb2.Outcome(
            kind=kind, message=f"ended {name}", cause="made_up", memory_limit_bytes=1 << 30
        )
        base = runs["finished"]
        runs[f"ended-{name}"] = replace(base, phase=Finished(outcome, PLACE, 41), reported=bool(kind % 2))
    launches = {}
    for number, (name, run) in enumerate(sorted(runs.items())):
        spec = full_spec()
        run_id = spec.run_id = f"{number:08}-0000-4000-8000-{number:012}"
        launch = readers.launch_of(spec, None, "spiffe://runyard/client/shop")
        launch = replace(
            launch,
            requirements=run.launch.requirements,
            policies=patient(run.launch.policies),
            share="shop.py",
            digest="" if name == "adopted" else launch.digest,
        )
        if isinstance(run.phase, Finished):
            launch = launch.without_secrets()
        times = replace(run.times, launched=NOW + number)
        launches[name] = replace(run, launch=launch, times=times)
        assert launches[name].run_id == run_id
    store.write([SaveRun(run, "launched") for run in launches.values()])
    store.write([SaveRun(replace(launches["running"]), "runs")])
    store.write(
        [
            SaveNode(make_node()),
            SaveNode(replace(make_node("node-b"), service=Cordoned(), cluster="east", confirmed_epoch=3)),
            SaveNode(replace(make_node("node-c"), service=Draining(600.0, 0.0))),
            SaveNode(replace(make_node("node-d"), service=Draining(None, 0.0), epoch=1 << 40)),
            SaveTombstone("99999999-0000-4000-8000-000000000000", Tombstone("changed my mind: ü", NOW)),
        ]
    )
    data = zlib.compress(b'{"made": "up"}')
    store.put_snapshot("5" * 40, hashlib.sha256(b'{"made": "up"}').hexdigest(), data)
    far = NOW + 100 * 365 * 86_400
    with store.transaction() as connection:
        for number, node in enumerate(("", "node-x")):
            token = Token(f"token{number}", "d" * 64, "east", node, NOW + number, far, 5, number, "local")
            credentials.put_token(connection, token)
            certificate = credentials.NodeCertificate(
                serial=f"{number + 31:x}",
                uri="spiffe://runyard/agent/east/node-x",
                cluster="east",
                node_id="node-x",
                key_digest="e" * 64,
                request_digest="f" * 64,
                token_id=f"token{number}" if number else "",
                issued_at=NOW + number,
                not_before=NOW,
                not_after=far,
                authority="0123456789abcdef",
                pem="-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            )
            credentials.put_certificate(connection, certificate)
        credentials.put_revocation(connection, NodeRevocation("node-y", NOW, "stolen"))
        credentials.put_revocation(connection, CertificateRevocation("ff", NOW, "its key leaked"))
    store.close()
    (HERE / "coordinator").mkdir(exist_ok=True)
    shutil.copy(FOLDER / "coordinator" / "coordinator.db", HERE / "coordinator" / "coordinator.db")
    write_json("database.json", readers.read_database(FOLDER / "coordinator", NOW))


def patient(policies: Policies) -> Policies:
    """The same limits where there are some, but long enough to be looked at."""
    limits = (policies.max_queue_time, policies.start_timeout)
    queue, start = (None if limit is None else limit + 1e6 for limit in limits)
    return replace(policies, max_queue_time=queue, start_timeout=start)


# Messages


def full_spec() -> run_pb2.LaunchSpec:
    """A launch as the launcher of 0.1.0 makes it."""
    spec = run_pb2.LaunchSpec(
        run_id="11111111-2222-4333-8444-555555555555",
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        worker_args='{"made": "up"}',
        code_origin=run_pb2.CodeOrigin(
            location="shop.py",
            repository="__repository__",
            job="orders",
            executable="/opt/shop/bin/python",
            working_directory="/srv/shop",
            image="registry.example/shop:1",
            container_context_json='{"runyard": {"cpu": 2, "labels": {"zone": ["a", "b"]}}}',
        ),
        tags={"runyard/memory": "1Gi", "runyard/labels": "zone=a|b,!spot", "dagster/priority": "3"},
        environment={"TOKEN": "made-up-token", "LANG": "C"},
        deployment="prod",
        job_snapshot_id="5" * 40,
        step_keys=["extract", "load"],
        execution_config_json='{"config": {"multiprocess": {"max_concurrent": 4}}}',
    )
    spec.environment_references["SECRET"].file = "/run/secrets/token"
    spec.environment_references["OTHER"].env = "NODE_TOKEN"
    spec.requirements.cluster = "east"
    spec.requirements.labels.extend(["zone=a", "cores>=16"])
    spec.requirements.resources.update({"cpu": 2000, "memory": 1 << 30, "slots": 1})
    spec.requirements.preferences.add(label="disk=ssd", weight=5)
    spec.requirements.isolation = "prefer"
    spec.policies.grace.seconds = 45
    spec.policies.max_queue_time.seconds = 7200
    spec.policies.start_timeout.seconds = 120
    spec.policies.stop_after.seconds = 300
    return spec


def entry(name: str, message: Message) -> dict[str, Any]:
    return {
        "name": name,
        "type": message.DESCRIPTOR.name,
        "bytes": base64.b64encode(message.SerializeToString(deterministic=True)).decode(),
        "json": readers.plain(message),
    }


def filled(name: str, depth: int = 0) -> Message:
    """A message of this type with every field set, each to another value; the last of each oneof stays."""
    message = readers.message_class(name)()
    for field in message.DESCRIPTOR.fields:
        fill(message, field, depth)
    return message


def fill(message: Any, field: Any, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        if value.message_type is not None:
            getattr(message, field.name)[scalar(key, field)].CopyFrom(
                filled(value.message_type.name, depth + 1)
            )
        else:
            getattr(message, field.name)[scalar(key, field)] = scalar(value, field)
    elif field.message_type is not None:
        if depth > 4:
            return
        if field.message_type.file.package == "google.protobuf":
            part = type(getattr(message, field.name))(seconds=1_700_000_000 + field.number, nanos=500_000_000)
        else:
            part = filled(field.message_type.name, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).add().CopyFrom(part)
        else:
            getattr(message, field.name).CopyFrom(part)
    elif field.is_repeated:
        getattr(message, field.name).append(scalar(field, field))
    else:
        setattr(message, field.name, scalar(field, field))


def scalar(field: Any, named: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == field.TYPE_STRING:
        return f"ü {named.name}"
    if field.type == field.TYPE_BYTES:
        return b"\x00\xff" + named.name.encode()
    if field.type == field.TYPE_BOOL:
        return True
    if field.type == field.TYPE_DOUBLE:
        return named.number + 0.25
    wide = field.type in (field.TYPE_UINT64, field.TYPE_INT64)
    return (1 << 40 if wide else 1 << 20) + named.number


def record_messages() -> None:
    protocol = readers.read_protocol()
    write_json("protocol.json", protocol)
    names = [name.rpartition(".")[2] for name in protocol["messages"] if not name.endswith("Entry")]
    messages = [entry(f"{name} with every field", filled(name)) for name in names]
    for name, oneof in (
        ("SessionRequest", "message"),
        ("SessionResponse", "message"),
        ("AttemptReport", "news"),
    ):
        kind = readers.message_class(name)
        for field in kind.DESCRIPTOR.oneofs_by_name[oneof].fields:
            message = kind()
            fill(message, field, 0)
            messages.append(entry(f"{name} with {field.name}", message))
    rejection = wire.rejection_of(Reject(AttemptKey("run-a", 1), "no room on the disk", why="disk_full"))
    messages.append(entry("rejection", rejection))
    spec = full_spec()
    messages.append(entry("launch", spec))
    key = SigningKey(load_key())
    key_file = FOLDER / "signing.key"
    whole = signed(spec, key_file, NOW, 600.0)
    messages.append(entry("signed launch", whole))
    assign = agent_pb2.Assign(run_id=spec.run_id, attempt=2, spec=whole, after_heartbeat=3)
    assign.start_within.seconds = 15
    messages.append(entry("assign", assign))
    messages.append(entry("outcome", OUTCOME))
    write_json("messages.json", messages)
    write_json(
        "signature.json",
        {
            "launch": base64.b64encode(whole.SerializeToString(deterministic=True)).decode(),
            "public_key": str(key.public),
            "key_id": key.public.key_id,
            "payload": base64.b64encode(whole.signed.payload).decode(),
            "signed_bytes": base64.b64encode(b"runyard launch statement 1\0" + whole.signed.payload).decode(),
            "signature": base64.b64encode(whole.signed.signature).decode(),
            "now": NOW + 60,
            "digest": readers.digest_of(whole.SerializeToString()),
        },
    )


def load_key() -> Any:
    """A made-up signing key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    FOLDER.mkdir(exist_ok=True, mode=0o700)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    file = FOLDER / "signing.key"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    return private


# The command line


def record_output() -> None:
    from compatibility.serving import as_value, commands_of, serving

    with serving(HERE / "coordinator") as yard:
        found = {}
        for name, arguments in commands_of(json.loads((HERE / "database.json").read_text())).items():
            code, out = yard.run(*arguments)
            found[name] = {
                "arguments": list(arguments),
                "exit_code": code,
                "output": as_value(out),
            }
    write_json("output.json", found)


PARTS: dict[str, Callable[[], None]] = {
    "settings": record_settings,
    "directories": lambda: asyncio.run(record_directories()),
    "database": record_database,
    "messages": record_messages,
    "output": record_output,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
