"""A client that crosses a fork, in processes of their own: gRPC and fork do not mix inside a test process."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from client.fake_coordinator import FakeCoordinator

PROGRAM = """
import os, sys
from runyard.client import Client, Health

client = Client(sys.argv[1], timeout=10)
if sys.argv[2] == "connected":
    assert client.check_health() is Health.SERVING
for _ in range(10):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if client.check_health() is Health.SERVING and client.list_nodes() == [] else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"child ended with wait status {status}"
    assert client.check_health() is Health.SERVING
client.close()
print("done")
"""


@pytest.mark.parametrize("moment", ["unused", "connected"])
def test_a_client_works_on_both_sides_of_a_fork(coordinator: FakeCoordinator, moment: str) -> None:
    # Without what another part's tests may have set for processes that never fork.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, coordinator.address, moment],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        out, err = parent.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)  # a child that hangs must not outlive the test
    assert (parent.returncode, out) == (0, "done\n"), err
