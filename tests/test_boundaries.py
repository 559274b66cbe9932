"""Boundaries between the parts: which may import which, and what loading one of them loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("protos", "common", "coordinator", "agent", "client", "cli", "launcher")

# How names and times are spelt: pure, so that the cores may use it too.
PURE = (
    "runyard.common.defaults",
    "runyard.common.durations",
    "runyard.common.humanize",
    "runyard.common.names",
    "runyard.common.protobuf_time",
    "runyard.common.quantities",
    "runyard.common.security.expiry",
)

MAY_IMPORT = {
    "common": ("runyard.v1", "runyard.common"),
    "coordinator": ("runyard.v1", "runyard.common", "runyard.coordinator"),
    "agent": ("runyard.v1", "runyard.common", "runyard.agent"),
    "client": ("runyard.v1", "runyard.common", "runyard.client"),
    "cli": ("runyard.v1", "runyard.common", "runyard.client", "runyard.cli"),
    "launcher": ("runyard.v1", "runyard.common", "runyard.client", "runyard.launcher"),
}

_AUTHORITY = "runyard.coordinator.ca"

EXCEPTIONS = {
    # The doctor has the launcher itself read its settings, where Dagster is installed.
    ("dagster_checks.py", "runyard.launcher.launcher.RunyardRunLauncher"),
    # `runyard ca` works on the authority's directory, on the machine where the coordinator is installed.
    ("ca.py", f"{_AUTHORITY}.authority_directory.AuthorityDirectory"),
    ("ca.py", f"{_AUTHORITY}.authority_directory.AuthorityError"),
    ("ca.py", f"{_AUTHORITY}.issued.Issued"),
}

SUPERVISOR = ROOT / "agent" / "runyard" / "agent" / "supervisor"
# These three run inside the worker's own environment, where Dagster is installed.
RUNS_DAGSTER = {"worker.py", "preload.py", "warm_up_run.py"}
NOT_IN_CORE = {"asyncio", "grpc", "sqlalchemy", "time", "os", "socket", "threading", "random", "psutil"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        ours = [name for name in imports(path) if name.startswith("runyard")]
        strangers = [
            name
            for name in ours
            if not is_within(name, MAY_IMPORT[part]) and (path.name, name) not in EXCEPTIONS
        ]
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize("part", ["coordinator", "agent"])
def test_the_core_knows_neither_clock_nor_network_nor_disk(part: str) -> None:
    files = list((ROOT / part / "runyard" / part / "core").rglob("*.py"))
    assert files
    for path in files:
        found = {name.partition(".")[0] for name in imports(path)} & NOT_IN_CORE
        assert not found, f"{path.relative_to(ROOT)} imports {found}"
        ours = [name for name in imports(path) if name.startswith("runyard")]
        allowed = ("runyard.v1", f"runyard.{part}.core", *PURE)
        assert all(is_within(name, allowed) for name in ours), f"{path.relative_to(ROOT)} imports {ours}"


def test_the_supervisor_imports_only_itself_and_the_standard_library() -> None:
    files = list(SUPERVISOR.rglob("*.py"))
    assert files
    for path in files:
        allowed = {"dagster", "alembic"} if path.name in RUNS_DAGSTER else set()
        for name in imports(path):
            top = name.partition(".")[0]
            known = top in sys.stdlib_module_names or top in allowed
            assert known or is_within(name, ("runyard.agent.supervisor",)), f"{path.name} imports {name}"


def test_no_root_has_a_module_of_its_own_in_the_namespace() -> None:
    """One `__init__.py` there would make the other roots vanish."""
    for root in ROOTS:
        strays = [path.name for path in (ROOT / root / "runyard").iterdir() if path.is_file()]
        assert not strays, f"{root}/runyard holds {strays}"


@pytest.mark.parametrize(
    ("module", "must_not_load"),
    [
        (
            "runyard.client",
            {"typer", "rich", "yaml", "pydantic", "structlog", "psutil", "sqlalchemy", "dagster"},
        ),
        (
            "runyard.launcher",
            {"typer", "psutil", "pydantic", "structlog", "runyard.agent", "runyard.coordinator"},
        ),
        ("runyard.coordinator.server", {"dagster", "psutil", "runyard.agent", "runyard.launcher"}),
        (
            "runyard.agent.server",
            {"dagster", "docker", "sqlalchemy", "runyard.coordinator", "runyard.launcher"},
        ),
    ],
)
def test_loading_a_part_leaves_the_others_alone(module: str, must_not_load: set[str]) -> None:
    # What `import dagster` itself loads is not the launcher's doing.
    code = (
        "import sys\n"
        f"if {module == 'runyard.launcher'}: import dagster\n"
        "before = set(sys.modules)\n"
        f"import {module}\n"
        "print('\\n'.join(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not must_not_load & set(done.stdout.split())


COORDINATOR_LAYERS = (
    "core",
    "store",
    "runtime",
    "routing_config",
    "auth",
    "ca",
    "audit",
    "grpc",
    "config",
    "security",
    "services",
    "server",
    "command",
    "__main__",
)
"""The coordinator's rooms, the lowest first."""


CORE_LAYERS = (
    "errors",
    "timers",
    "requirements",
    "routing",
    "model",
    "effects",
    "leases",
    "agent_reports",
    "client_scope",
    "transitions",
    "scheduling",
    "fleet",
    "resolve_launch",
    "launch_admission",
    "explain",
    "events",
)
"""The rooms of the coordinator's core, the lowest first."""


AGENT_LAYERS = (
    "supervisor",
    "logs",
    "core",
    "spec_record",
    "config",
    "node",
    "security",
    "drivers",
    "admission",
    "runtime",
    "session",
    "server",
    "__main__",
)
"""The agent's rooms, the lowest first."""

LAUNCHER_LAYERS = (
    "errors",
    "config",
    "causes",
    "tags",
    "engine_events",
    "health",
    "debug_info",
    "signing",
    "launch_spec",
    "reporter",
    "launcher",
    "reporter_main",
)
"""The launcher's rooms, the lowest first."""

CLI_LAYERS = (
    "exit_codes",
    "options",
    "output",
    "run_ids",
    "doctor",
    "commands",
    "app",
    "main",
)
"""The rooms of the command line, the lowest first."""

LAYERS = {
    "runyard.coordinator": COORDINATOR_LAYERS,
    "runyard.coordinator.core": CORE_LAYERS,
    "runyard.agent": AGENT_LAYERS,
    "runyard.launcher": LAUNCHER_LAYERS,
    "runyard.cli": CLI_LAYERS,
}


@pytest.mark.parametrize("package", LAYERS)
def test_each_room_imports_only_lower_ones(package: str) -> None:
    layers = LAYERS[package]
    folder = ROOT / package.split(".")[1] / Path(*package.split("."))
    rooms = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert rooms - {"__init__"} == set(layers)
    for number, room in enumerate(layers):
        lower = tuple(f"{package}.{each}" for each in layers[: number + 1])
        files = [folder / f"{room}.py"] if (folder / f"{room}.py").exists() else (folder / room).rglob("*.py")
        for path in files:
            ours = [name for name in imports(path) if name.startswith(f"{package}.")]
            strangers = [name for name in ours if not is_within(name, lower)]
            assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"
