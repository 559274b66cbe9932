"""The real cores of coordinator and agents under virtual time, with every fault at every step."""

import os

import pytest
from simulation.play import play
from simulation.world import World

SEEDS = int(os.environ.get("RUNYARD_SIMULATION_SEEDS", "1000"))
BATCH = 100


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_run_is_doubled_forgotten_or_reopened_whatever_fails(first: int) -> None:
    for seed in range(first, min(first + BATCH, SEEDS)):
        play(seed)


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = World(7), World(7)
    first.play()
    second.play()
    assert first.kernel.history == second.kernel.history
