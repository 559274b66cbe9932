"""Plan of one warm server. Two runs with equal plans may be forks of the same server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

from runyard.agent.supervisor.records import Record

PER_RUN = frozenset({"DAGSTER_RUN_JOB_NAME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"})
"""Variables that differ between runs of one environment, so servers do not have them."""


@dataclass(frozen=True)
class WarmPlan(Record):
    """`plan`: how to make a warm server. Holds the workers' environment, so the file's mode is 0600."""

    python: str
    """Path of the interpreter."""
    script: str
    """Path of the program that forks continue as."""
    cwd: str
    env: dict[str, str] = field(repr=False)
    """The whole environment except the variables in `PER_RUN`."""
    modules: tuple[str, ...] = ()
    """Modules to import."""
    job_origin: str = ""
    """Job whose code location is loaded too, serialised by Dagster; empty: no user code is loaded."""
    secrets_loader: str = ""
    """Loader that sets variables before user code is loaded, serialised by Dagster; empty for none."""
    forks_steps: bool = False
    """True if the processes of Dagster's steps are forks too, where that is safe."""
    location: str = ""
    """Name of the code location, for people and for the secrets loader."""
    is_secret: bool = False
    """The environment holds secrets: the plan is deleted from disk after use."""

    @property
    def name(self) -> str:
        """Name of the server and of its directory. Jobs of one code location share a server."""
        origin = json.loads(self.job_origin)["repository_origin"] if self.job_origin else ""
        shared = replace(self, job_origin=json.dumps(origin, sort_keys=True))
        return hashlib.sha256(shared.encode()).hexdigest()[:16]
