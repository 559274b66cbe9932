"""Errors of the launcher, with messages for Dagster's users."""

from runyard.client import RunyardError


class InvalidLauncherConfig(RunyardError):
    """A setting of the launcher in `dagster.yaml` is wrong."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        self.field = field
        super().__init__(f"run_launcher.config.{field} {problem}. {remedy}")


class NotLaunched(RunyardError):
    """The run was not launched; Dagster fails it with this message."""


class NotTerminated(RunyardError):
    """The worker could not be asked to stop; the message says what was changed in Dagster."""
