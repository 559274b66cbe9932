"""What importing the launcher costs those that only need the package, and those that need the class."""

import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_costs_nothing() -> None:
    loaded = modules_after("import runyard.launcher")
    assert not loaded & {"dagster", "grpc", "runyard.client", "runyard.launcher.launcher"}


def test_the_launcher_needs_no_other_part_of_runyard() -> None:
    with_dagster = modules_after("import dagster, dagster._core.launcher")
    loaded = modules_after("from runyard.launcher import RunyardRunLauncher") - with_dagster
    parts = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("runyard.")}
    assert parts == {"runyard.client", "runyard.common", "runyard.launcher", "runyard.v1"}
    assert not loaded & {"psutil", "typer", "rich", "structlog", "pydantic", "sqlalchemy"}


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    import runyard.launcher

    assert not hasattr(runyard.launcher, "NoSuchLauncher")
