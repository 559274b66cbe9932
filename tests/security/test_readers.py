"""All that reads what others wrote keeps its promise for any bytes; `make fuzz` looks for longer."""

import pytest
from security.fuzzing.drawn import inputs
from security.fuzzing.targets import TARGETS, Target
from security.rounds import fuzz


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: f"{target.name}-")
def test_a_reader_keeps_its_promise(target: Target) -> None:
    for seed in target.seeds:
        target.probe(seed)
    assert fuzz(inputs(target), target.probe, ordinary=0.7)
