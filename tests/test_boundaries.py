"""Which part may import which: what keeps the house's rooms apart, and a Dagster environment light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("protos", "coordinator", "agent", "client", "launcher")

SHARED = (
    "runyard.v1",
    "runyard.client.address",
    "runyard.client.channel",
    "runyard.client.errors",
    "runyard.client.references",
    "runyard.client.secrets",
    "runyard.client.certificates",
    "runyard.client.identity",
    "runyard.client.tls",
)
# How names and times are spelt: pure, so that the cores may use it too.
PURE = (
    "runyard.client.service.names",
    "runyard.client.service.quantities",
    "runyard.client.durations",
    "runyard.client.expiry",
)
SERVICE = (*SHARED, *PURE, "runyard.client.service")

MAY_IMPORT = {
    "coordinator": (*SERVICE, "runyard.coordinator"),
    "agent": (*SERVICE, "runyard.agent"),
    "launcher": ("runyard.v1", "runyard.client", "runyard.launcher"),
    "client": ("runyard.v1", "runyard.client"),
}

_AUTHORITY = "runyard.coordinator.security"

EXCEPTIONS = {
    # The doctor has the launcher itself read its settings, where Dagster is installed.
    ("doctor_dagster.py", "runyard.launcher.launcher.RunyardRunLauncher"),
    # The authority's directory is worked on beside the coordinator, where that is installed.
    ("authority_commands.py", f"{_AUTHORITY}.authority_directory.AuthorityDirectory"),
    ("authority_commands.py", f"{_AUTHORITY}.authority_directory.AuthorityError"),
    ("authority_commands.py", f"{_AUTHORITY}.issued.Issued"),
}

STANDARD_LIBRARY_ONLY = (
    "warmchildren",
    "warm.boot",
    "warm.commandline",
    "warm.fitness",
    "warm.freshness",
    "warm.plan",
    "warm.preload",
    "warm.randomness",
    "warm.rebirth",
    "warm.rehearsal",
    "warm.server",
    "warm.steps",
    "forkserver",
    "shim",
    "watch",
    "belongings",
    "privileges",
    "limits.plan",
    "limits.groups",
    "limits.tree",
    "limits.scope",
    "limits.enforcement",
    "contact",
    "rundir",
    "rundir.directories",
    "rundir.directory",
    "rundir.durable",
    "rundir.errors",
    "records",
    "procfs",
    "endings",
    "oom",
    "worker",
)
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


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_what_runs_beside_workers_needs_only_the_standard_library(module: str) -> None:
    siblings = tuple(f"runyard.agent.{name}" for name in STANDARD_LIBRARY_ONLY)
    path = ROOT / "agent" / "runyard" / "agent" / module.replace(".", "/")
    for name in imports(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")):
        top = name.partition(".")[0]
        runs_dagster = module in ("worker", "warm.preload", "warm.rehearsal") and top in (
            "dagster",
            "alembic",
        )
        assert top in sys.stdlib_module_names or runs_dagster or is_within(name, siblings), name


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
