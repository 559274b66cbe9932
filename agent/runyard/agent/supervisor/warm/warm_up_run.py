"""Executes a throw-away run before the first fork, so that Dagster creates its caches then.

It takes the code path of a real run, with its own Dagster instance in a temporary directory that is deleted
afterwards. It uses none of the user's storage, no network and no user code.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator

_SETTINGS = """
telemetry: {enabled: false}
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
"""

_JOB = """
import dagster

@dagster.op
def step() -> None: ...

@dagster.job(executor_def=dagster.in_process_executor)
def job() -> None:
    step()
"""


def execute_warm_up_run() -> None:
    """Execute a run with one step. It restores environment, signal handlers and modules afterwards."""
    with tempfile.TemporaryDirectory(prefix="runyard-warm-up-") as folder, _restored(), _silenced():
        arguments = _arguments(folder)
        with contextlib.suppress(SystemExit):
            _execute(arguments)


def _arguments(home: str) -> str:
    from dagster import DagsterInstance, DagsterRunStatus
    from dagster._core.code_pointer import FileCodePointer
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import serialize_value

    script = os.path.join(home, "runyard_warm_up.py")
    for name, content in ((script, _JOB), (os.path.join(home, "dagster.yaml"), _SETTINGS)):
        with open(name, "w") as file:
            file.write(content)
    recon_job = ReconstructableRepository(FileCodePointer(script, "job", home)).get_reconstructable_job("job")
    with DagsterInstance.from_config(home) as instance:
        run = instance.create_run_for_job(
            recon_job.get_definition(),
            status=DagsterRunStatus.STARTING,
            job_code_origin=recon_job.get_python_origin(),
        )
        args = ExecuteRunArgs(recon_job.get_python_origin(), run.run_id, instance.get_ref())
        return serialize_value(args)


def _execute(arguments: str) -> None:
    from dagster._cli import ENV_PREFIX, cli

    cli(args=["api", "execute_run", arguments], prog_name="dagster", auto_envvar_prefix=ENV_PREFIX)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    modules = set(sys.modules)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        for name in sys.modules.keys() - modules:
            if name.startswith("runyard_"):
                del sys.modules[name]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress the output of the warm-up run."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
