"""An agent reduced to its Docker driver, to be killed: `hosted_docker_driver.py STATE_DIR HOST RUN_ID...`."""

import asyncio
import sys
from pathlib import Path

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import AttemptKey, AttemptPhase
from runyard.agent.drivers.docker.driver import DockerDriver
from runyard.agent.supervisor.rundir import RunDirectories

AGENT = "test-installation"


def _tell(key: AttemptKey, phase: AttemptPhase) -> None:
    print(key, type(phase).__name__, flush=True)


async def _host(state: Path, host: str, runs: list[str]) -> None:
    driver = DockerDriver(DockerSettings(host=host), RunDirectories(state), _tell, AGENT)
    await driver.open()
    for run in runs:
        await driver.start(AttemptKey(run, 1))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_host(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
