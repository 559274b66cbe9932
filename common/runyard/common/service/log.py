"""Structured logs on stderr: lines for people, or JSON for machines. Secrets are masked in both."""

import contextlib
import functools
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from runyard.common.secrets import MASK, is_secret_name, masked

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_NAMES_ONLY = ("_id", "_ids", "_name", "_names")
"""Suffixes of keys that name a secret without holding it."""


def configure_log(log_format: LogFormat, level: LogLevel = "info") -> None:
    """Configure the process's logs. Call it once, before anything is logged.

    Args:
        log_format: `console` for people, `json` for one object a line.
        level: `debug`, `info`, `warning` or `error`.
    """
    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=functools.partial(_Lines, sys.stderr),
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes lines. A line that cannot be written is dropped: a full disk must not stop runs."""

    def __init__(self, stream: TextIO, *_: object) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor that masks values with secret names, and known secrets in texts and tracebacks.

    It must come after the processor that formats exceptions, and before the renderer.
    """
    return {key: _masked_entry(key, value) for key, value in event.items()}


def _masked_entry(key: object, value: object) -> object:
    if isinstance(key, str) and is_secret_name(key) and not key.endswith(_NAMES_ONLY):
        return value if value is None or isinstance(value, bool | int | float) else MASK
    return _masked_value(value)


def _masked_value(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return masked(value)
        case Mapping():
            return {key: _masked_entry(key, item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked_value(item) for item in value]
    shown = repr(value)  # as the renderers print it
    without = masked(shown)
    return value if without == shown else without
