"""Both sides together, in a temporary folder."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import yaml

from runyard.client.errors import RunyardError

from .dagster_site import DagsterSite
from .processes import Processes, wait_for
from .yard import Yard

QUICKSTART = Path(__file__).parents[1] / "quickstart"


class LeftBehind(Exception):
    """Processes of the deployment were alive after everything had been stopped. They were killed."""


class Deployment:
    """A coordinator that serves and a Dagster instance that launches there; agents are added by the user."""

    def __init__(
        self,
        *,
        project: Path = QUICKSTART,
        module: str = "quickstart.definitions",
        settings: Mapping[str, Any] = MappingProxyType({}),
        launcher: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Starts the coordinator and the code server.

        Args:
            project: Folder with the Dagster project.
            module: Its module with the definitions.
            settings: Top-level keys of `dagster.yaml` that differ from the quickstart's.
            launcher: Settings of the run launcher beside the address.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="runyard-"))
        self.processes = Processes(self.folder)
        try:
            self.yard = Yard(self.processes, self.folder)
            self.yard.start_coordinator()
            content = {**quickstart_settings(address=self.yard.address, **launcher), **settings}
            self.site = DagsterSite(self.processes, self.folder / "dagster", project, module, content)
        except BaseException:
            self.processes.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_runs()
        self.site.close()
        self.yard.close()
        left_behind = self.processes.close()
        if error is None:
            if left_behind:
                raise LeftBehind("\n".join(left_behind))
            shutil.rmtree(self.folder)

    def _end_runs(self) -> None:
        """Ends every run: a worker outlives its agent, so stopping the agents would not stop it."""
        try:
            for run in self.yard.live_runs():
                self.yard.client.terminate_run(run.run_id, reason="the deployment is taken down")
            wait_for(lambda: not self.yard.live_runs(), "the last workers to end", timeout=20)
        except (RunyardError, TimeoutError):
            return  # without a coordinator or its agents; the mark finds the workers


def quickstart_settings(**launcher: Any) -> dict[str, Any]:
    """The quickstart's `dagster.yaml`, with these settings of the run launcher."""
    settings: dict[str, Any] = yaml.safe_load((QUICKSTART / "dagster.yaml").read_text())
    settings["run_launcher"]["config"].update(launcher)
    return settings
