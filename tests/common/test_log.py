"""Logs are for people; nothing else hangs on them."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import contextlib
import sys
import structlog
from runyard.common.service.log import configure_log
configure_log({log_format!r})
log = structlog.get_logger()
for number in range(1_000):
    log.warning("line", number=number, text="x" * 100)
if {closed}:
    with contextlib.suppress(OSError):
        sys.stderr.close()
    log.error("more")
print("goes on")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("closed", [False, True])
def test_a_service_goes_on_though_its_log_cannot_be_written(log_format: str, closed: bool) -> None:
    program = PROGRAM.format(log_format=log_format, closed=closed)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=full, stdout=subprocess.PIPE, text=True, timeout=60
        )
    assert done.stdout == "goes on\n"


def test_lines_come_whole_and_in_order() -> None:
    program = PROGRAM.format(log_format="json", closed=False)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert len(lines) == 1_000
    assert all(f'"number": {number},' in line for number, line in enumerate(lines))
