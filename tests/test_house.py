"""The shape of the source tree: no import circles, no large folders or modules, no retired names."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("common", "coordinator", "agent", "client", "cli", "launcher")

MAX_FILES = 15
MAX_LINES = 420

LARGE_MODULES: dict[str, str] = {}
"""Modules that may be longer, each with the reason."""

RETIRED_NAMES = frozenset(
    [
        "AsyncClient",
        "Agenda",
        "Belongings",
        "Cell",
        "ContainerFollower",
        "Expulsion",
        "Follower",
        "ForkServerLink",
        "Gatekeeper",
        "GivenEnvironment",
        "Holdings",
        "Lack",
        "Lane",
        "Linger",
        "LookingDriver",
        "Lot",
        "NoWarden",
        "Offering",
        "Outgoing",
        "Placeable",
        "PressureWatch",
        "Quest",
        "Rated",
        "Rebirth",
        "ReportLine",
        "Requisites",
        "Rung",
        "Seeker",
        "SecureYard",
        "SentMessages",
        "SentOffer",
        "Shelf",
        "Shell",
        "Shims",
        "Sight",
        "Situation",
        "Sweep",
        "ThoughtLaunch",
        "Ticket",
        "Transfers",
        "Turns",
        "Wants",
        "Warden",
        "WardenLink",
        "Witness",
        "Yard",
        "answering",
        "belongings_of",
        "find_rung",
        "heaviest_at_once",
        "imagined_launch",
        "imagined_spec",
        "open_yard",
        "place_elsewhere",
        "wants_of",
        "wants_of_config",
        "wants_of_tags",
    ]
)
"""Names of 0.1.0 that the glossary replaced. Keys on disk and on the wire keep their names."""

PATH_OF_ONE_RUN = re.compile(r"^\d+\. `([^`]+)` `([^`]+)`: ", re.M)
MAX_PATH = 20


def tracked(*patterns: str) -> list[Path]:
    """Files under version control, or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.splitlines() if (path := ROOT / name).exists()]


def python_files() -> list[Path]:
    """Hand-written Python: neither generated stubs nor what older versions wrote."""
    recorded = ROOT / "tests" / "recorded"
    return [path for path in tracked("*.py") if "_pb2" not in path.name and recorded not in path.parents]


@cache
def modules(root: str) -> dict[str, Path]:
    """The modules of a root by their dotted names."""
    base = ROOT / root
    found = {}
    for path in (base / "runyard").rglob("*.py"):
        parts = path.relative_to(base).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_within(root: str, path: Path) -> Iterator[str]:
    """The modules of the same root that a file imports."""
    known = modules(root)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of a graph that have more than one member (Kosaraju's algorithm)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, edges: dict[str, set[str]], into: list[str]) -> None:
        stack = [(name, iter(edges.get(name, ())))]
        seen.add(name)
        while stack:
            current, following = stack[-1]
            for each in following:
                if each not in seen:
                    seen.add(each)
                    stack.append((each, iter(edges.get(each, ()))))
                    break
            else:
                into.append(current)
                stack.pop()

    for name in graph:
        if name not in seen:
            visit(name, graph, order)
    back: dict[str, set[str]] = {}
    for name, targets in graph.items():
        for target in targets:
            back.setdefault(target, set()).add(name)
    seen.clear()
    found = []
    for name in reversed(order):
        if name not in seen:
            part: list[str] = []
            visit(name, back, part)
            if len(part) > 1:
                found.append(sorted(part))
    return found


def test_the_search_for_circles_finds_them() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["b", "c"]]


@pytest.mark.parametrize("root", ROOTS)
def test_no_modules_of_a_root_import_each_other_in_a_circle(root: str) -> None:
    graph = {name: set(imports_within(root, path)) - {name} for name, path in modules(root).items()}
    assert circles(graph) == []


@pytest.mark.parametrize("root", ROOTS)
def test_no_rooms_of_a_root_import_each_other_in_a_circle(root: str) -> None:
    def room(name: str) -> str:
        return ".".join(name.split(".")[:3])

    graph: dict[str, set[str]] = {}
    for name, path in modules(root).items():
        targets = {room(each) for each in imports_within(root, path)}
        graph.setdefault(room(name), set()).update(targets - {room(name)})
    assert circles(graph) == []


def test_no_folder_holds_more_files_than_one_takes_in_at_a_glance() -> None:
    folders: dict[Path, int] = {}
    for path in python_files():
        if path.name != "__init__.py" and "versions" not in path.parts:
            folders[path.parent] = folders.get(path.parent, 0) + 1
    large = {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > MAX_FILES}
    assert not large


def test_no_module_of_the_product_is_longer_than_one_reads_at_once() -> None:
    product = [path for path in python_files() if path.relative_to(ROOT).parts[0] in ROOTS]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in product}
    long = {name: count for name, count in lengths.items() if count > MAX_LINES and name not in LARGE_MODULES}
    assert not long


def test_no_name_is_used_that_the_glossary_retired() -> None:
    for path in python_files():
        if path == Path(__file__):
            continue
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                getattr(node, "id", None),
                getattr(node, "attr", None),
                getattr(node, "name", None) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None,
            )
        }
        assert not names & RETIRED_NAMES, f"{path.relative_to(ROOT)} uses {names & RETIRED_NAMES}"


def test_no_docstring_begins_with_a_clause_instead_of_a_noun_or_verb() -> None:
    for path in python_files():
        if path.relative_to(ROOT).parts[0] not in ROOTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                clause = re.match(r"(What|Who|Whose|Whether|Why|How|Where) ", text)
                assert clause is None, f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"


def test_the_path_of_one_run_in_the_architecture_is_short_and_names_real_functions() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("## The path of one run")[2].partition("\n## ")[0]
    steps = PATH_OF_ONE_RUN.findall(section)
    assert 10 <= len(steps) <= MAX_PATH
    assert len({path for path, _ in steps}) == len(steps)
    for path, function in steps:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in functions, f"{path} has no function {function}"
