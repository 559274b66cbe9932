"""The ledger: what the workers themselves say of their lives, so that nothing has to be believed of Runyard.

A worker appends `start` when it begins and `end` when it ends, and holds a lock on a file of its run for as
long as it lives. One that finds the lock taken appends `twice`: two workers of one run at the same time.
"""

import fcntl
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# As `supervisor/worker.py`: $2 is the verb, $3 the run ID. Its sleep must not keep the lock of a dead worker.
_WORKER = """#!/bin/sh
run=$3
note() { echo "$1 $run $$ $2" >> "$LEDGER"; }
exec 9>> "$LEDGER.$run"
flock --nonblock 9 || note twice
note start
trap 'note end 143; exit 143' TERM
sleep "$SECONDS_AT_WORK" 9>&- &
wait $!
note end 0
"""


@dataclass
class Life:
    """What the ledger says of one run.

    Attributes:
        starts: Process IDs of its workers, in the order of their starts.
        ends: Exit code by process ID.
        overlaps: How many workers found another one of the same run alive.
    """

    starts: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    overlaps: int = 0

    @property
    def succeeded(self) -> bool:
        """True if a worker did all its work."""
        return 0 in self.ends.values()


class Ledger:
    """The ledger of one cluster.

    Args:
        folder: Where it is kept; not on a disk that a test fills.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger"
        self.path.touch()
        self.worker = folder / "worker"
        self.worker.write_text(_WORKER)
        self.worker.chmod(0o755)

    def environment(self, seconds: float) -> dict[str, str]:
        """What a worker needs to know, which is to work for so many seconds."""
        return {"LEDGER": str(self.path), "SECONDS_AT_WORK": f"{seconds:.2f}"}

    def lives(self) -> dict[str, Life]:
        """By run ID, everything that was written so far."""
        lives: dict[str, Life] = defaultdict(Life)
        for line in self.path.read_text().splitlines():
            event, run_id, pid, *code = line.split()
            life = lives[run_id]
            match event:
                case "start":
                    life.starts.append(int(pid))
                case "end":
                    life.ends[int(pid)] = int(code[0])
                case "twice":
                    life.overlaps += 1
        return lives

    def life(self, run_id: str) -> Life:
        """What was written of one run so far."""
        return self.lives().get(run_id, Life())

    def is_alive(self, run_id: str) -> bool:
        """True while a worker of the run holds its lock."""
        try:
            descriptor = os.open(f"{self.path}.{run_id}", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
