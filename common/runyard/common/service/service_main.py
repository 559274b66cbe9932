"""The command line that both services have: flags, settings, a check, and an exit code that tells."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from runyard.common.errors import InsecureAddress, InvalidTlsFiles
from runyard.common.service.log import LogFormat, LogLevel, configure_log
from runyard.common.service.settings import Settings, SettingsError, TlsSettings, load_settings
from runyard.common.transport.tls import TlsFiles


class ServiceSettings(Settings):
    """Settings that every service has."""

    tls: TlsSettings | None = None
    """Certificates of this service. Without them it uses plain text, on this machine only."""

    log_format: LogFormat = "console"
    log_level: LogLevel = "info"

    def require_safe(self) -> None:
        """Raises `InsecureAddress` if an address leaves this machine and there are no certificates for it."""
        raise NotImplementedError

    def tls_files(self) -> TlsFiles | None:
        """The certificates to use. None: plain text."""
        return self.tls.files() if self.tls is not None else None

    def check_files(self) -> None:
        """Looks at the files that the settings name, for `--check`.

        Raises:
            SettingsError: One of them cannot be used.
        """
        if (files := self.tls_files()) is not None:
            try:
                files.read()
            except InvalidTlsFiles as error:
                raise SettingsError(str(error)) from error


S = TypeVar("S", bound=ServiceSettings)

log = structlog.get_logger("runyard.settings")


def service_parser(role: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags that every service has; each is stored under the name of its setting."""
    parser = argparse.ArgumentParser(
        prog=f"runyard {role}",
        description=description,
        epilog=f"Every setting may also be in the --config file or in RUNYARD_{role.upper()}_<SETTING>.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--state", dest="state_directory", type=Path, metavar="DIR", help="where everything is kept"
    )
    for part, help_text in (
        ("authority", "certificates of the authorities to trust, in PEM; the three --tls-... go together"),
        ("certificate", "this service's certificate"),
        ("key", "the key of that certificate; nobody else may read it"),
    ):
        parser.add_argument(f"--tls-{part}", type=Path, metavar="FILE", help=help_text)
    parser.add_argument("--log-format", choices=("console", "json"))
    parser.add_argument("--check", action="store_true", help="check the settings and exit")
    return parser


def run_service(
    role: str,
    kind: type[S],
    given: argparse.Namespace,
    serve: Callable[[S], int],
    failures: tuple[type[Exception], ...],
) -> int:
    """Reads the settings and runs the service with them.

    Args:
        role: `coordinator` or `agent`.
        kind: The settings of that role.
        given: What `service_parser` and the role's own flags gave.
        serve: Serves until it is told to stop, and returns the exit code.
        failures: What `serve` raises with a message for the operator.

    Returns:
        Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.
    """
    flags: dict[str, Any] = {key: value for key, value in vars(given).items() if key in kind.model_fields}
    flags["tls"] = _tls_flags(given)
    renamed: list[tuple[str, str]] = []
    try:
        settings = load_settings(
            kind,
            file=given.config,
            prefix=f"RUNYARD_{role.upper()}",
            flags=flags,
            on_renamed=lambda old, new: renamed.append((old, new)),
        )
        settings.require_safe()
        if given.check:
            settings.check_files()
    except (SettingsError, InsecureAddress) as error:
        print(f"runyard {role}: {error}", file=sys.stderr)
        return 2
    if given.check:
        print("the settings are fine")
        return 0
    configure_log(settings.log_format, settings.log_level)
    for old, new in renamed:
        log.warning("setting_renamed", old=old, new=new, remedy=f"write {new}; {old} will be removed")
    try:
        return serve(settings)
    except failures as error:
        print(f"runyard {role}: {error}", file=sys.stderr)
        return 1


def _tls_flags(given: argparse.Namespace) -> dict[str, Path] | None:
    parts = {part: getattr(given, f"tls_{part}") for part in TlsSettings.model_fields}
    return {part: path for part, path in parts.items() if path is not None} or None
