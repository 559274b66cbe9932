"""Both sides together, in a temporary folder."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from runyard.client.errors import RunyardError

from .dagster_site import DagsterSite
from .local_cluster import LocalCluster
from .processes import Processes, wait_for

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

NOTHING: Mapping[str, Any] = MappingProxyType({})


class LeftBehind(Exception):
    """Processes of the deployment were alive after everything had been stopped. They were killed."""


@dataclass(frozen=True)
class Deployment:
    """A coordinator that serves and a Dagster instance that launches there; agents are added by the user."""

    folder: Path
    processes: Processes
    cluster: LocalCluster
    site: DagsterSite


@contextmanager
def open_deployment(
    *,
    project: Path = QUICKSTART,
    module: str = "quickstart.definitions",
    settings: Mapping[str, Any] = NOTHING,
    launcher: Mapping[str, Any] = NOTHING,
    routing: Path | None = None,
) -> Iterator[Deployment]:
    """Starts the coordinator and a code server; in the end takes down all that was started since.

    Args:
        project: Folder with the Dagster project.
        module: Its module with the definitions.
        settings: Top-level keys of `dagster.yaml` that differ from the quickstart's.
        launcher: Settings of the run launcher beside the address.
        routing: The coordinator's routing file.

    Raises:
        LeftBehind: Some process was still there in the end.
    """
    with (
        _temporary_folder() as folder,
        _no_process_left_behind(folder) as processes,
        closing(LocalCluster(processes, folder, routing)) as cluster,
    ):
        cluster.start_coordinator()
        content = {**quickstart_settings(address=cluster.address, **launcher), **settings}
        with closing(DagsterSite(processes, folder / "dagster", project, module, content)) as site:
            try:
                yield Deployment(folder, processes, cluster, site)
            finally:
                _end_runs(cluster)


def quickstart_settings(**launcher: Any) -> dict[str, Any]:
    """The quickstart's `dagster.yaml`, with these settings of the run launcher."""
    settings: dict[str, Any] = yaml.safe_load((QUICKSTART / "dagster.yaml").read_text())
    settings["run_launcher"]["config"].update(launcher)
    return settings


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that stays after an error, which then names it; a mere Ctrl-C leaves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-"))
    try:
        yield folder
    except Exception as error:
        error.add_note(f"Logs and state of the deployment are in {folder}")
        raise
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


@contextmanager
def _no_process_left_behind(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder)
    try:
        yield processes
    except BaseException:
        processes.close()
        raise
    if left_behind := processes.close():
        raise LeftBehind("\n".join(left_behind))


def _end_runs(cluster: LocalCluster) -> None:
    """Ends every run: a worker outlives its agent, so stopping the agents would not stop it."""
    try:
        for run in cluster.live_runs():
            cluster.client.terminate_run(run.run_id, reason="the deployment is taken down")
        wait_for(lambda: not cluster.live_runs(), "the last workers to end", timeout=20)
    except (RunyardError, TimeoutError):
        return  # no coordinator or no agent any more: the workers are found by their mark
