"""An agent reduced to its driver, to be killed: `python hosted_driver.py STATE_DIR RUN_ID ATTEMPT`."""

import asyncio
import sys
from pathlib import Path

from runyard.agent.core.model import AttemptKey, AttemptPhase
from runyard.agent.drivers.process.driver import ProcessDriver
from runyard.agent.supervisor.rundir import RunDirectories


def _ignore(key: AttemptKey, phase: AttemptPhase) -> None:
    pass


async def _host(state: Path, key: AttemptKey) -> None:
    driver = ProcessDriver(RunDirectories(state), _ignore)
    await driver.open()
    await driver.start(key)
    print("start was asked for", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_host(Path(sys.argv[1]), AttemptKey(sys.argv[2], int(sys.argv[3]))))
