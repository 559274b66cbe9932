"""No fork executes code that has changed: the run that meets the change starts cold."""

import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from agent.warm_side import WarmBench
from harness.waiting import wait_until

from runyard.agent.supervisor.rundir import RunDirectories
from runyard.agent.supervisor.warm.plan import WarmPlan


@pytest.fixture
async def bench(directories: RunDirectories, tmp_path: Path) -> AsyncIterator[WarmBench]:
    project = tmp_path / "project"
    project.mkdir()
    made = WarmBench(directories, project)
    await made.link.open()
    yield made
    made.link.close()


def write(path: Path, text: str) -> None:
    """Writes a file, and returns when the clock of the file system has moved on.

    Otherwise a server that is started at once takes the file for one that changed while it was read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    written = path.stat().st_ctime
    wait_until(lambda: time.time() > written + 0.1, "the clock stands still", poll=0.01)


def project(bench: WarmBench) -> WarmPlan:
    """A package that reads a file and looks for its modules; the script prints what it found."""
    write(bench.project / "shop" / "jobs" / "__init__.py", "")
    write(bench.project / "shop" / "jobs" / "daily.py", "VALUE = 1")
    write(bench.project / "shop" / "prices.yaml", "1")
    write(
        bench.project / "shop" / "__init__.py",
        "import importlib, pathlib, pkgutil, shop.jobs\n"
        "names = [each.name for each in pkgutil.iter_modules(shop.jobs.__path__)]\n"
        "values = [importlib.import_module('shop.jobs.' + name).VALUE for name in names]\n"
        "print_this = [values, pathlib.Path(__file__).with_name('prices.yaml').read_text()]\n",
    )
    return bench.plan("import shop; print(shop.print_this)", "shop")


def edit(text: str) -> Callable[[Path], object]:
    return lambda shop: (shop / "jobs" / "daily.py").write_text(text)


def edit_unnoticed(shop: Path) -> None:
    """Another text of the same size and time of modification, as some deployment tools leave it."""
    path = shop / "jobs" / "daily.py"
    before = path.stat()
    path.write_text("VALUE = 2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(shop / "jobs" / "__pycache__", ignore_errors=True)


@pytest.mark.parametrize(
    ("change", "output", "reason"),
    [
        (edit("VALUE = 20"), "[[20], '1']", "daily.py has changed"),
        (edit_unnoticed, "[[2], '1']", "daily.py has changed"),
        (lambda shop: (shop / "prices.yaml").write_text("2"), "[[1], '2']", "prices.yaml has changed"),
        (
            lambda shop: (shop / "jobs" / "extra.py").write_text("VALUE = 3"),
            "[[1, 3], '1']",
            "jobs came or went",
        ),
        (lambda shop: (shop / "jobs" / "daily.py").unlink(), "[[], '1']", "daily.py has changed"),
    ],
    ids=["edited", "edited in secret", "data edited", "module added", "module removed"],
)
async def test_what_the_code_read_on_import_is_watched(
    bench: WarmBench, change: Callable[[Path], object], output: str, reason: str
) -> None:
    plan = project(bench)
    assert "ready" in await bench.open(plan)
    assert await bench.output(plan) == "[[1], '1']\n"
    change(bench.project / "shop")
    assert await bench.output(plan) == f"{output}\n"
    assert reason in (await bench.news_with("refused"))["reason"]


async def test_files_that_are_not_code_may_come_and_go(bench: WarmBench) -> None:
    plan = project(bench)
    await bench.open(plan)
    for name in ("run.log", "data.db", "data.db-journal"):
        (bench.project / name).touch()
        (bench.project / "shop" / "jobs" / name).touch()
    assert await bench.output(plan) == "[[1], '1']\n"
    assert not any("refused" in message for message in bench.news)


async def test_code_that_changed_while_it_was_read_is_not_forked(bench: WarmBench) -> None:
    write(bench.project / "slow.py", "import pathlib; pathlib.Path(__file__).touch()")
    plan = bench.plan("print('ran')", "slow")
    await bench.open(plan)
    assert await bench.output(plan) == "ran\n"
    assert "slow.py changed while it was read" in (await bench.news_with("refused"))["reason"]


async def test_an_installation_of_packages_is_noticed(bench: WarmBench) -> None:
    place = bench.project / "site-packages"
    place.mkdir()
    write(place / "tool-1.0.dist-info" / "RECORD", "")
    plan = bench.plan("print('ran')", "json", PYTHONPATH=str(place))
    await bench.open(plan)
    assert await bench.output(plan) == "ran\n"
    (place / "tool-1.0.dist-info").rename(place / "tool-1.1.dist-info")
    assert await bench.output(plan) == "ran\n"
    assert f"packages in {place} have changed" in (await bench.news_with("refused"))["reason"]


async def test_plans_that_differ_in_anything_have_servers_of_their_own(bench: WarmBench) -> None:
    plan = bench.plan("", "json")
    names = {
        each.name
        for each in (
            plan,
            bench.plan("", "json", CODE_VERSION="2"),
            bench.plan("", "json", "csv"),
            WarmPlan(plan.python + "3", plan.script, plan.cwd, plan.env, plan.modules),
            WarmPlan(plan.python, plan.script, "/elsewhere", plan.env, plan.modules),
        )
    }
    assert len(names) == 5
