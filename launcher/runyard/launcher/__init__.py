"""Dagster's side of Runyard: the run launcher, and the reporter that writes outcomes into Dagster.

In `dagster.yaml`:

    run_launcher:
      module: runyard.launcher
      class: RunyardRunLauncher
      config:
        address: 127.0.0.1:7171
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runyard.launcher.launcher import RunyardRunLauncher as RunyardRunLauncher

__all__ = ["RunyardRunLauncher"]


def __getattr__(name: str) -> object:
    """Import the launcher on first access, so that importing the package alone is cheap."""
    if name == "RunyardRunLauncher":
        from runyard.launcher.launcher import RunyardRunLauncher

        return RunyardRunLauncher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
