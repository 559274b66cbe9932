"""From a run's spec to the plan of a warm server that could fork its worker. No I/O."""

import json
from collections.abc import Iterator
from typing import Any

from runyard.agent.config.warm import WarmMode
from runyard.agent.supervisor import worker as worker_script
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.warm.plan import PER_RUN, WarmPlan

_ALWAYS = ("dagster", "dagster._cli.api")

_FILE_LOADERS = ("EnvFileLoader", "PerProjectEnvFileLoader")
"""Secrets loaders that read files, whose changes are seen. What others give may change at any moment."""


def plan_of(spec: SpecRecord, mode: WarmMode, forks_steps: bool) -> WarmPlan | None:
    """The plan for a run; None if it cannot be a fork, or is not to be.

    Args:
        spec: Of a run whose worker is Runyard's script.
        mode: What may be imported ahead. User code is not, if its variables come from elsewhere than files.
        forks_steps: Whether the processes of steps are forks too, where that is safe.
    """
    if mode == "off" or len(spec.argv) < 2 or spec.argv[1] != worker_script.__file__:
        return None
    if spec.run_as:
        return None  # a server is the agent's user's, and so would be what is imported there
    try:
        arguments = json.loads(spec.worker_args)
        instance = arguments.get("instance_ref") or {}
        origin = arguments.get("job_origin") or arguments.get("pipeline_origin")
        secrets_loader = instance.get("secrets_loader_data")
    except (ValueError, AttributeError):
        return None
    if origin is None:
        return None  # whatever this is, it is no run of Dagster's
    is_for_location = mode == "location" and _reads_files(secrets_loader)
    # User code may read its secrets when it is imported. Dagster does not, and each fork has its own.
    left_out = PER_RUN if is_for_location else PER_RUN.union(spec.secret_names)
    return WarmPlan(
        python=spec.argv[0],
        script=spec.argv[1],
        cwd=spec.cwd,
        env={name: value for name, value in spec.env.items() if name not in left_out},
        modules=(*_ALWAYS, *sorted(set(_modules(instance)))),
        job_origin=json.dumps(origin) if is_for_location else "",
        secrets_loader=json.dumps(secrets_loader) if is_for_location and secrets_loader else "",
        forks_steps=forks_steps,
        location=str(spec.identity.get("location", "")) if is_for_location else "",
        is_secret=is_for_location and bool(spec.secret_names),
    )


def _reads_files(secrets_loader: Any) -> bool:
    return secrets_loader is None or secrets_loader.get("class_name") in _FILE_LOADERS


_USED_BY_RUNS = (
    "compute_logs",
    "event_storage",
    "run_storage",
    "schedule_storage",
    "storage",
    "run_launcher",
)


def _modules(instance: dict[str, Any]) -> Iterator[str]:
    """The modules of the parts of Dagster's instance that a run makes."""
    for part in _USED_BY_RUNS:
        module = (instance.get(f"{part}_data") or {}).get("module_name")
        if module:
            yield module.replace("dagster.core", "dagster._core", 1)
