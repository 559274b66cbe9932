"""Jobs that are given secrets, and what they do with them.

digest-<run>    appears when the run's op has begun: what it was given, as a hash
release-<run>   lets the run's op go on
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent
GIVEN = ("PLANTED_PASSWORD", "PLANTED_URL", "FROM_NODE", "FROM_FILE")


class Configured(dg.Config):
    """What the op is given in its run config."""

    password: str


def note(context: dg.OpExecutionContext, config: Configured) -> list[str]:
    """Tells the test that everything has arrived, without telling what."""
    given = [*(os.environ[name] for name in GIVEN), config.password]
    digests = [hashlib.sha256(value.encode()).hexdigest() for value in given]
    aside = HERE / f".digest-{context.run_id}"
    aside.write_text(json.dumps(digests))
    aside.rename(HERE / f"digest-{context.run_id}")
    return given


@dg.op
def keep_silent(context: dg.OpExecutionContext, config: Configured) -> None:
    note(context, config)
    while not (HERE / f"release-{context.run_id}").exists():
        time.sleep(0.05)


@dg.op
def blurt_out(context: dg.OpExecutionContext, config: Configured) -> None:
    given = note(context, config)
    print("last words:", *given[:4], "(the end)", file=sys.stderr, flush=True)
    os._exit(3)


@dg.op
def stumble(context: dg.OpExecutionContext, config: Configured) -> None:
    given = note(context, config)
    raise ValueError(f"cannot log in with {given[0]}")


@dg.job
def silent() -> None:
    """Is given secrets, and waits."""
    keep_silent()


@dg.job
def blurting() -> None:
    """Writes its secrets to stderr, and ends without a word to Dagster."""
    blurt_out()


@dg.job
def stumbling() -> None:
    """Fails with a secret in its exception."""
    stumble()


defs = dg.Definitions(jobs=[silent, blurting, stumbling], executor=dg.in_process_executor)
