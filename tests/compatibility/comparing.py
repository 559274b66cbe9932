"""Comparison of a value that 0.1.0 read with the value that this version reads."""

import json
import shutil
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "recorded" / "v0_1_0"
"""Directory of the files that version 0.1.0 wrote."""


def recorded(name: str) -> Any:
    """Return a value that version 0.1.0 read from its own files."""
    return json.loads((RECORDED / name).read_text())


def private_copy(name: str, to: Path) -> Path:
    """Copy a recorded directory, readable by this user only, as the services create theirs."""
    copy = to / name
    shutil.copytree(RECORDED / name, copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return where the new value differs from the old one. Additional keys are not differences."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [f"{path}.{key}: is gone, was {old[key]!r}" for key in old if key not in new]
        return found + [
            each for key in old if key in new for each in differences(old[key], new[key], f"{path}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            each
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            for each in differences(before, after, f"{path}[{index}]")
        ]
    return [] if old == new and type(old) is type(new) else [f"{path}: is {new!r}, was {old!r}"]
