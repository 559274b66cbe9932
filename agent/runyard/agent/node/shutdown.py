"""Tells the shutdown of the machine from a mere stop of the agent."""

import asyncio
from collections.abc import Sequence

import structlog

ANSWER_WITHIN = 5.0
"""Seconds for the command to answer."""

log = structlog.get_logger("runyard.agent")


async def machine_is_stopping(command: Sequence[str]) -> bool:
    """Whether the machine is shutting down.

    Args:
        command: Prints `stopping` if so, as `systemctl is-system-running` does; empty: never.

    Returns:
        False also if the command is missing, or does not answer.
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
