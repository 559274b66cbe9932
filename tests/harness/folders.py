"""Folders of tests that are over."""

import shutil
from pathlib import Path

from harness.waiting import wait_until


def remove(folder: Path) -> None:
    """Removes a folder in which processes that are just ending may still write, such as shims."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(is_gone, lambda: f"there are still {sorted(folder.rglob('*'))}")
