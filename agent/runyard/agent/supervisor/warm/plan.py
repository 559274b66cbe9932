"""What one warm server is for. Two runs whose plans are equal may be forks of one server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

from runyard.agent.supervisor.records import Record

PER_RUN = frozenset({"DAGSTER_RUN_JOB_NAME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"})
"""Variables that differ between runs of one environment, so that servers do without them."""


@dataclass(frozen=True)
class WarmPlan(Record):
    """`plan`: how to make a warm server. Holds the workers' environment, so the file's mode is 0600."""

    python: str
    """Path of the interpreter."""
    script: str
    """What the interpreter would be asked to run; a fork goes on as this."""
    cwd: str
    env: dict[str, str] = field(repr=False)
    """The whole environment, without what `PER_RUN` names."""
    modules: tuple[str, ...] = ()
    """To be imported."""
    job_origin: str = ""
    """Of a job whose code location is loaded too, as Dagster serialises it; empty: no user code is."""
    secrets_loader: str = ""
    """Of what puts variables into the environment before user code is loaded; serialised likewise."""
    forks_steps: bool = False
    """Whether the processes of Dagster's steps are forks too, where that is safe."""
    location: str = ""
    """Name of the code location, for people and for the secrets loader."""
    is_secret: bool = False
    """The environment holds secrets: the plan is not left on disk."""

    @property
    def name(self) -> str:
        """Of the server, and of the directory of its files. Jobs of one code location share a server."""
        origin = json.loads(self.job_origin)["repository_origin"] if self.job_origin else ""
        shared = replace(self, job_origin=json.dumps(origin, sort_keys=True))
        return hashlib.sha256(shared.encode()).hexdigest()[:16]
