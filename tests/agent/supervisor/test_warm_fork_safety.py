"""What a fork cannot carry over makes a server unusable, with a reason that people see."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent.warm_side import NAME, WarmBench

from runyard.agent.supervisor.rundir import RunDirectories


@pytest.fixture
async def bench(directories: RunDirectories, tmp_path: Path) -> AsyncIterator[WarmBench]:
    project = tmp_path / "project"
    project.mkdir()
    made = WarmBench(directories, project)
    await made.link.open()
    yield made
    made.link.close()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "importing started 1 thread(s), which a fork would lack",
        ),
        ("import socket\nkept = socket.socketpair()", "importing left a connection open (socket:"),
        ("import sqlite3\nkept = sqlite3.connect('a.db'); kept.execute('create table t (x)')", "a.db open"),
        ("import os\nkept = os.pipe()", "open, which forks would share"),
        ("kept = open(__file__)", "whose position forks would share"),
        ("kept = open('made.log', 'a')", "made.log open, whose position"),
        ("import select\nkept = select.epoll()", "eventpoll"),
        (
            "import multiprocessing\nkept = multiprocessing.Lock()",
            "shared memory, which forks would all write",
        ),
        ("import mmap\nkept = mmap.mmap(-1, 4096)", "shared memory, which forks would all write"),
        ("import tempfile\nkept = tempfile.TemporaryDirectory()", "the first fork to end would delete"),
        ("import os\nos.fork = lambda: 0", "importing replaced os.fork"),
        ("import sys, types\nsys.modules['polars'] = types.ModuleType('polars')", "polars was imported: "),
        ("import nowhere", "cannot import shaky: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(3)", "cannot import shaky: SystemExit: 3"),
        ("1 +", "cannot import shaky: SyntaxError"),
    ],
)
async def test_an_import_that_forks_could_not_share_is_named(
    bench: WarmBench, module: str, reason: str
) -> None:
    (bench.project / "shaky.py").write_text(module)
    plan = bench.plan("print('ran')", "shaky")
    assert reason in (await bench.open(plan))["unusable"]
    assert (await bench.news_with("gone"))["warm"] == NAME
    assert await bench.output(plan) == "ran\n"


async def test_a_server_that_dies_while_it_imports_says_how(bench: WarmBench) -> None:
    (bench.project / "fatal.py").write_text("import os; os.abort()")
    plan = bench.plan("", "fatal")
    (bench.home / "plan").write_bytes(plan.encode())
    await bench.link.open_warm(NAME, bench.home)
    assert "SIGABRT" in (await bench.news_with("gone"))["gone"]


async def test_a_thread_that_comes_later_is_seen_before_the_next_fork(bench: WarmBench) -> None:
    (bench.project / "late.py").write_text(
        "import os, threading, time\n"
        "def start(): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "os.register_at_fork(after_in_parent=start)\n"
    )
    plan = bench.plan("print('ran')", "late")
    await bench.open(plan)
    assert [await bench.output(plan), await bench.output(plan)] == ["ran\n", "ran\n"]
    assert "started 1 thread(s)" in (await bench.news_with("refused"))["reason"]


async def test_harmless_descriptors_are_kept_for_forks(bench: WarmBench) -> None:
    (bench.project / "entropy.py").write_text("kept = open('/dev/urandom', 'rb')")
    plan = bench.plan("import entropy; print(len(entropy.kept.read(4)))", "entropy")
    assert "ready" in await bench.open(plan)
    assert await bench.output(plan) == "4\n"


async def test_forks_draw_different_random_numbers_unless_the_code_gave_a_seed(bench: WarmBench) -> None:
    (bench.project / "dice.py").write_text(
        "import random\nown = random.Random()\nseeded = random.Random(42)\nsystem = random.SystemRandom()\n"
        "unseeded_later = random.Random(7)\nunseeded_later.seed()\n"
    )
    script = (
        "import dice, json, os, random, secrets, tempfile, uuid\n"
        "print(json.dumps([random.random(), dice.own.random(), dice.unseeded_later.random(),"
        " secrets.token_hex(), str(uuid.uuid4()), str(uuid.uuid1()), tempfile.mktemp(),"
        " dice.seeded.random()]))"
    )
    plan = bench.plan(script, "dice", "uuid", "tempfile")
    await bench.open(plan)
    draws = [json.loads(await bench.output(plan)) for _ in range(3)]
    *different, seeded = zip(*draws, strict=True)
    assert all(len(set(values)) == 3 for values in different)
    assert set(seeded) == {json.loads(await bench.output(plan, warm=False))[-1]}


async def test_a_seed_that_the_code_gives_to_python_itself_holds_in_forks(bench: WarmBench) -> None:
    (bench.project / "fixed.py").write_text("import random\nrandom.seed(42)\nrandom.random()")
    plan = bench.plan("import fixed, random; print(random.random())", "fixed")
    await bench.open(plan)
    cold, *warm = [await bench.output(plan, warm=warm) for warm in (False, True, True)]
    assert warm == [cold, cold]
