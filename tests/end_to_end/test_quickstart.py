"""The example project loads in Dagster as it is."""

import subprocess
import sys

from harness.deployment import QUICKSTART


def test_the_quickstart_loads_from_its_workspace_file() -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "--workspace", "workspace.yaml"]
    result = subprocess.run(command, cwd=QUICKSTART, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
