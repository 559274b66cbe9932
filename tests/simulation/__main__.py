"""Many seeds, on all cores: `make simulate SEEDS=100000`. Ends with exit code 1 if one of them fails."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from simulation.play import failures

BATCH = 50


def play_all(first: int, count: int, jobs: int) -> Iterable[tuple[int, list[str]]]:
    """Plays the seeds in parallel; gives after each batch how many were played, and what failed there."""
    ranges = [(start, min(start + BATCH, first + count)) for start in range(first, first + count, BATCH)]
    played = 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for (start, end), found in zip(ranges, pool.map(failures, *zip(*ranges, strict=True)), strict=True):
            played += end - start
            yield played, found


def main() -> int:
    """Prints the history of each failing seed, and a closing line."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    began, failed = time.monotonic(), 0
    for played, found in play_all(given.first, given.seeds, given.jobs):
        failed += len(found)
        for text in found:
            print(text, flush=True)
        if played % 5_000 == 0:
            print(f"{played} seeds played, {failed} failed", flush=True)
    seconds = time.monotonic() - began
    print(f"{given.seeds - failed} passed, {failed} failed in {seconds:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
