"""Distinction between a shutdown of the machine and a stop of the agent."""

import asyncio
from collections.abc import Sequence

import structlog

ANSWER_WITHIN = 5.0
"""Seconds for the command to answer."""

log = structlog.get_logger("runyard.agent")


async def machine_is_stopping(command: Sequence[str]) -> bool:
    """Return true if the machine is shutting down.

    Args:
        command: Prints `stopping` if it is, as `systemctl is-system-running` does. Empty: false.

    Returns:
        False also if the command does not exist or does not answer.
    """
    if not command:
        return False
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.debug("cannot_ask_for_the_state_of_the_machine", error=str(error))
        return False
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            answer, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return answer.strip() == b"stopping"
