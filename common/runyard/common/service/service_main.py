"""The command line that both services have: a flag for every setting, a check, and an exit code."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import structlog
import typer
from rich.markup import escape

from runyard.common.errors import InsecureAddress, InvalidTlsFiles
from runyard.common.service.log import LogFormat, LogLevel, configure_log
from runyard.common.service.setting_keys import SettingKey, setting_keys
from runyard.common.service.settings import Settings, SettingsError, TlsSettings
from runyard.common.service.settings_sources import flag_name, load_settings, read_value
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.common.transport.tls import TlsFiles

_NEW_NAMES_SINCE = "0.2"
"""Version that renamed settings. Their old names are deprecated since then."""

_PRECEDENCE = (
    "Every setting can also be set in the --config file or in an environment variable: {prefix}_<SETTING>, "
    "and {prefix}_<SECTION>__<SETTING> in a section. Flags override the environment, and the environment "
    "overrides the file. Values other than single texts are YAML."
)


class ServiceSettings(Settings):
    """Settings that every service has."""

    tls: TlsSettings | None = None
    """Certificates of this service. Without them it uses plain text, on this machine only."""

    log_format: LogFormat = "console"
    """Format of the log: `console` for people, `json` for one object a line."""

    log_level: LogLevel = "info"
    """Least severe level that is logged."""

    def require_safe(self) -> None:
        """Check that no address on another machine is used without certificates.

        Raises:
            InsecureAddress: One is.
        """
        raise NotImplementedError

    def tls_files(self) -> TlsFiles | None:
        """Return the certificates to use; None for plain text."""
        return self.tls.files() if self.tls is not None else None

    def check_files(self) -> None:
        """Read the files that the settings name, for `--check`.

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


@dataclass(frozen=True)
class Service(Generic[S]):
    """A service that has a command line.

    Attributes:
        role: `coordinator` or `agent`.
        summary: One sentence for `--help`.
        settings: Its settings. Each has a flag, such as `--log-format` or `--isolation.backends`.
        serve: Serves until the process gets a signal to stop, and returns the exit code.
        failures: Exceptions of `serve` whose message is for the operator.
        short_flags: Further flags, by the dotted key of their setting.
        entry_flags: Flags for one entry of a mapping (`KEY=VALUE`) or of a list, by the key of their setting.
    """

    role: str
    summary: str
    settings: type[S]
    serve: Callable[[S], int]
    failures: tuple[type[Exception], ...]
    short_flags: Mapping[str, str] = field(default_factory=dict)
    entry_flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Prefix of its environment variables, without the underscore that follows."""
        return f"RUNYARD_{self.role.upper()}"

    def flags_of(self, key: SettingKey) -> tuple[str, ...]:
        """Return the flags for a setting's whole value."""
        short = {**_SHORT_FLAGS, **self.short_flags}.get(key.name)
        return (flag_name(key.path), *([short] if short else []))

    def main(self, argv: list[str] | None) -> int:
        """Run the service.

        Args:
            argv: Arguments after the program's name; None for those of the process.

        Returns:
            Exit code: 0 after an orderly stop, 1 after a failure, 2 for settings that cannot be used.

        Raises:
            SystemExit: The arguments are wrong, or only ask for the help or the version.
        """
        codes: list[int] = []
        app = self.app(codes.append)
        try:
            app(sys.argv[1:] if argv is None else argv, prog_name=f"runyard {self.role}")
        except SystemExit:
            if not codes:
                raise
        return codes[0]

    def app(self, on_code: Callable[[int], None] = lambda code: None) -> typer.Typer:
        """Return the command line.

        Args:
            on_code: Called with the exit code of the service.
        """
        app = typer.Typer(
            rich_markup_mode="rich",
            pretty_exceptions_enable=False,
            add_completion=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        parameters = _Parameters(self)

        def command(**given: Any) -> None:
            on_code(self._run(given["config"], given["check"], parameters.values(given)))

        command.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__doc__ = f"{self.summary}\n\n{_PRECEDENCE.format(prefix=self.prefix)}"
        app.command()(command)
        return app

    def _run(self, config: Path | None, check: bool, flags: Mapping[str, Any]) -> int:
        deprecated: list[str] = []
        try:
            settings = load_settings(
                self.settings,
                file=config,
                prefix=self.prefix,
                flags=flags,
                on_renamed=lambda old, new: deprecated.append(deprecation(old, new)),
            )
            settings.require_safe()
            if check:
                settings.check_files()
        except (SettingsError, InsecureAddress) as error:
            print(f"runyard {self.role}: {error}", file=sys.stderr)
            return 2
        deprecated = list(dict.fromkeys(deprecated))
        if check:
            for line in deprecated:
                print(f"runyard {self.role}: {line}", file=sys.stderr)
            print("the settings are fine")
            return 0
        configure_log(settings.log_format, settings.log_level)
        for line in deprecated:
            log.warning("setting_deprecated", message=line)
        try:
            return self.serve(settings)
        except self.failures as error:
            print(f"runyard {self.role}: {error}", file=sys.stderr)
            return 1


_SHORT_FLAGS = {
    "state_directory": "--state",
    "tls.authority": "--tls-authority",
    "tls.certificate": "--tls-certificate",
    "tls.key": "--tls-key",
}


def deprecation(old: str, new: str) -> str:
    """Return the warning about a setting under its old name."""
    return f"setting `{old}` is deprecated since {_NEW_NAMES_SINCE}; write `{new}`"


class _Parameters:
    """The parameters of a service's command: one for each setting, and the few that are not settings."""

    def __init__(self, service: Service[Any]) -> None:
        self._service = service
        keys = setting_keys(service.settings)
        # Help lists panels in the order of their first parameter.
        self._keys = sorted(keys, key=lambda key: len(key.path) > 1 or key.is_section)

    def __iter__(self) -> Iterator[inspect.Parameter]:
        yield _parameter(
            "config", Path | None, typer.Option("--config", metavar="FILE", help="YAML file with settings.")
        )
        yield _parameter(
            "check", bool, typer.Option("--check", help="Check the settings and exit."), default=False
        )
        yield _parameter(
            "version",
            bool,
            typer.Option(
                "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
            ),
            default=False,
        )
        for key in self._keys:
            yield self._setting(key)
            if key.name in self._service.entry_flags:
                yield self._entry(key)
            for old in key.old_names:
                yield _parameter(_python_name(old), str | None, typer.Option(flag_name(old), hidden=True))

    def _setting(self, key: SettingKey) -> inspect.Parameter:
        option = typer.Option(
            *self._service.flags_of(key),
            metavar=_metavar(key),
            help=escape(_help(key)),
            rich_help_panel=_panel(key),
            show_default=False,
        )
        return _parameter(_python_name(key.path), str | None, option)

    def _entry(self, key: SettingKey) -> inspect.Parameter:
        option = typer.Option(
            self._service.entry_flags[key.name],
            metavar="KEY=VALUE" if key.is_mapping else "ENTRY",
            help=escape(f"One entry of {flag_name(key.path)}; can be repeated."),
            rich_help_panel=_panel(key),
            show_default=False,
        )
        return _parameter(f"{_python_name(key.path)}__entry", list[str] | None, option)

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the settings by their dotted keys.

        Raises:
            typer.BadParameter: A value is not YAML, or an entry is not of the form KEY=VALUE.
        """
        found: dict[str, Any] = {}
        for key in self._keys:
            for path in (key.path, *key.old_names):
                written = given[_python_name(path)]
                if written is not None:
                    found[".".join(path)] = written if key.is_text else _value(flag_name(path), written)
            entries = given.get(f"{_python_name(key.path)}__entry")
            if entries:
                whole = found.get(key.name)
                flag = self._service.entry_flags[key.name]
                found[key.name] = (
                    {**(whole or {}), **dict(_pair(flag, entry) for entry in entries)}
                    if key.is_mapping
                    else [*(whole or ()), *entries]
                )
        return found


def _parameter(name: str, kind: object, option: object, default: object = None) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


def _python_name(path: Iterable[str]) -> str:
    return "setting_" + "__".join(path)


def _panel(key: SettingKey) -> str:
    return f"Section {key.path[0]}" if len(key.path) > 1 or key.is_section else "Settings"


def _metavar(key: SettingKey) -> str:
    return "YAML" if key.is_section else key.type.replace("`", "").upper()


def _help(key: SettingKey) -> str:
    default = f" [default: {key.default}]" if key.default not in (None, "", "[]", "{}") else ""
    return f"{key.help}{default}"


def _value(flag: str, text: str) -> Any:
    try:
        return read_value(text)
    except InvalidYamlFile as error:
        raise typer.BadParameter(f"{flag}: {error}") from None


def _pair(flag: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{flag}: {text!r} is not of the form KEY=VALUE")
    return key, value


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runyard {version('runyard')}")
        raise typer.Exit
