"""Imports the modules that the runs of an environment need, ahead of them."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from runyard.agent.supervisor.warm.plan import PER_RUN, WarmPlan
from runyard.agent.supervisor.warm.warm_up_run import execute_warm_up_run
from runyard.agent.supervisor.worker import read_migrations_once


class NotPreloaded(Exception):
    """A module could not be imported, or must not be; the message names it and the reason."""


def import_modules(plan: WarmPlan) -> None:
    """Import the modules of the plan.

    Raises:
        NotPreloaded: The server cannot be used. Runs start cold, and report the same error if it is real.
    """
    for module in plan.modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise NotPreloaded(f"cannot import {module}: {type(error).__name__}: {error}") from error
    # Each start invalidates the import caches, which needs this module.
    importlib.import_module("importlib.metadata")


def warm_up() -> None:
    """Execute a throw-away run, if Dagster was imported. A failure costs only time."""
    if "dagster._cli.api" not in sys.modules:
        return
    try:
        read_migrations_once()
        execute_warm_up_run()
    except Exception:
        traceback.print_exc()


def load_code_location(plan: WarmPlan) -> None:
    """Load the job as a run does. Dagster caches the definition, and the forks inherit it.

    Raises:
        NotPreloaded: As for `import_modules`.
    """
    if not plan.job_origin:
        return
    from dagster._core.origin import JobPythonOrigin
    from dagster._serdes import deserialize_value
    from dagster._utils.hosted_user_process import recon_job_from_origin

    reads = _Reads()
    with reads:
        try:
            _load_variables(plan)
            recon_job_from_origin(deserialize_value(plan.job_origin, JobPythonOrigin)).get_definition()
        except (Exception, SystemExit) as error:
            message = f"cannot load the code location {plan.location}: {type(error).__name__}: {error}"
            raise NotPreloaded(message) from error
    if reads.found:
        name = ", ".join(sorted(reads.found))
        raise NotPreloaded(
            f"the code location reads {name} when it is imported, which each run has its own of"
        )


def _load_variables(plan: WarmPlan) -> None:
    """Add the variables that `dagster api` adds before it imports user code."""
    from dagster._core.secrets.env_file import get_env_var_dict

    os.environ.update(get_env_var_dict(os.getcwd()))
    if not plan.secrets_loader:
        return
    from dagster._serdes import ConfigurableClassData, deserialize_value

    loader: Any = deserialize_value(plan.secrets_loader, ConfigurableClassData).rehydrate()
    os.environ.update(loader.get_secrets_for_environment(plan.location or None))


class _Reads:
    """Records which variables of `PER_RUN` the code reads from the environment."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._kind: Any = type(os.environ)
        self._get = self._kind.__getitem__

    def __enter__(self) -> None:
        get, found = self._get, self.found

        def look_up(environment: Any, name: Any) -> Any:
            if name in PER_RUN:
                found.add(name)
            return get(environment, name)

        self._kind.__getitem__ = look_up

    def __exit__(self, *_: object) -> None:
        self._kind.__getitem__ = self._get
