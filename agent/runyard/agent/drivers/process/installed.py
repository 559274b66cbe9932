"""The Dagster version that an interpreter would import, read from its packages without starting it.

Uncertain cases count as good: the worker finds out.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LEAST = (1, 9)
"""Major and minor number of the oldest Dagster that is supported: the extra `dagster` of pyproject.toml."""

_DISTRIBUTION = re.compile(r"dagster-(?:(\d+)!)?((\d+)\.(\d+)[^-]*)\.(?:dist|egg)-info")
_TRACE = re.compile(r"dagster(?:\.egg-link|\.py)?|__editable__\.dagster-.*")
"""What an installation in some other way leaves, such as one from its sources."""

_HARMLESS_CODE = re.compile(r"distutils-precedence\.pth|_virtualenv\.pth|__editable__.*\.pth|.*-nspkg\.pth")
"""Files whose code changes what is imported, but never where Dagster is."""


@dataclass(frozen=True)
class _Found:
    """Dagster in one folder of packages."""

    version: str = ""
    """As its distribution is named; empty for none."""
    is_old: bool = False
    is_certain: bool = True
    """Whether there is no other way by which Dagster could get in."""


class InstalledDagster:
    """Detects a Dagster that is missing or too old. Remembers each folder until it changes."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, _Found]] = {}

    def trouble(self, python: str, environment: Mapping[str, str]) -> str:
        """Problem of an interpreter's Dagster, with the remedy; empty if none is known.

        Args:
            python: Path of the interpreter.
            environment: Of the worker that is to be started with it.
        """
        if "PYTHONPATH" in environment or "/" not in python:
            return ""
        try:
            packages, is_isolated = _packages_of(Path(python))
            found = None if packages is None else self._look(packages)
        except OSError:
            return ""
        if found is None:
            return ""
        least = ".".join(map(str, LEAST))
        if found.is_old:
            old = f"Dagster {found.version} of {python} is too old"
            return f"{old}: Runyard supports {least} and newer; upgrade it on this node"
        if is_isolated and found.is_certain and not found.version:
            return f"{python} has no Dagster in {packages}; install dagster>={least} there on this node"
        return ""

    def _look(self, packages: Path) -> _Found:
        changed = packages.stat().st_mtime_ns
        known = self._known.get(packages)
        if known is None or known[0] != changed:
            known = self._known[packages] = (changed, _found_in(packages))
        return known[1]


def _packages_of(python: Path) -> tuple[Path | None, bool]:
    """The folder of an interpreter's packages, None if that is not clear; and whether it is the only one."""
    prefix = python.parent.parent
    try:
        settings = _settings_in((prefix / "pyvenv.cfg").read_text())
    except OSError:
        return _packages_beside(python.resolve()), False
    version = settings.get("version") or settings.get("version_info", "")
    folder = prefix / "lib" / f"python{'.'.join(version.split('.')[:2])}" / "site-packages"
    is_isolated = settings.get("include-system-site-packages", "false").lower() == "false"
    return (folder if folder.is_dir() else None), is_isolated


def _settings_in(text: str) -> dict[str, str]:
    """Of a pyvenv.cfg, as `site` of the standard library reads it."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _packages_beside(python: Path) -> Path | None:
    folder = python.parent.parent / "lib" / python.name / "site-packages"
    return folder if folder.is_dir() else None


def _found_in(packages: Path) -> _Found:
    names = os.listdir(packages)
    distributions = [match for name in names if (match := _DISTRIBUTION.fullmatch(name))]
    if not distributions:
        return _Found(
            is_certain=not any(map(_TRACE.fullmatch, names)) and not _leads_elsewhere(packages, names)
        )
    # An upgrade that was broken off leaves two; the benefit of the doubt is the newer one's.
    newest = max(distributions, key=_release)
    return _Found(newest[2], is_old=_release(newest) < (0, *LEAST))


def _release(distribution: re.Match[str]) -> tuple[int, int, int]:
    return int(distribution[1] or 0), int(distribution[3]), int(distribution[4])


def _leads_elsewhere(packages: Path, names: list[str]) -> bool:
    """True if a `.pth` file may add a folder that has Dagster."""
    for name in names:
        if name.endswith(".pth"):
            for line in (packages / name).read_text(errors="replace").splitlines():
                if line.startswith(("import ", "import\t")):
                    if not _HARMLESS_CODE.fullmatch(name):
                        return True
                elif line.strip() and (packages / line.strip() / "dagster").exists():
                    return True
    return False
