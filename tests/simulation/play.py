"""One seed, from beginning to end."""

from simulation.world import World

LINES = 80
"""Of a failing history, how many are shown."""


def play(seed: int) -> None:
    """Plays one seed.

    Raises:
        AssertionError: Something that must hold did not; with the seed and the last of the history.
    """
    world = World(seed)
    try:
        world.play()
    except Exception as error:
        history = "\n".join(world.kernel.history[-LINES:])
        raise AssertionError(f"seed {seed}: {error}\n{history}") from error


def failures(first: int, last: int) -> list[str]:
    """What went wrong in seeds `first` to `last`, the latter not included."""
    found = []
    for seed in range(first, last):
        try:
            play(seed)
        except AssertionError as error:
            found.append(str(error))
    return found
