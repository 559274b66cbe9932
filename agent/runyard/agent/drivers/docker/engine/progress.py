"""Progress of a pull, from the engine's reports on each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_MIB = 1 << 20
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting"})
_DONE = frozenset({"Pull complete", "Already exists"})
_BEGUN = frozenset({"Pulling fs layer", "Waiting", "Downloading"})


@dataclass(frozen=True)
class _Layer:
    got: int = 0
    """Bytes."""
    size: int | None = None
    """Bytes; known once its download has begun."""
    is_done: bool = False

    def after(self, status: str, detail: Mapping[str, Any]) -> "_Layer":
        if status == "Downloading":
            return replace(self, got=detail.get("current") or 0, size=detail.get("total") or self.size)
        if status in _DOWNLOADED | _DONE:
            whole = self.size or self.got  # nothing, of a layer that was there
            return _Layer(whole, whole, is_done=status in _DONE)
        return self


class Progress:
    """Progress of the pull of one image. One thread writes, others read.

    Args:
        image: Its name.
    """

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, _Layer] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Take a line of the engine's answer to a pull."""
        layer, status = line.get("id"), line.get("status") or ""
        if layer and status in _BEGUN | _DOWNLOADED | _DONE:  # the tag has an ID too, and is no layer
            known = self._layers.get(layer, _Layer())
            self._layers[layer] = known.after(status, line.get("progressDetail") or {})

    def __str__(self) -> str:
        layers = list(self._layers.values())  # in one step, since the other thread may add one
        if not layers:
            return f"pulling image {self._image}: the registry has sent nothing yet"
        got = sum(layer.got for layer in layers)
        total = sum(layer.size or 0 for layer in layers)
        at_least = "at least " if any(layer.size is None for layer in layers) else ""
        done = sum(layer.is_done for layer in layers)
        amount = f"{_in_mib(got)} of {at_least}{_in_mib(total)} MiB"
        return f"pulling image {self._image}: {amount}, {done} of {len(layers)} layers unpacked"


def _in_mib(count: int) -> str:
    return f"{count / _MIB:.1f}" if count < 10 * _MIB else f"{count / _MIB:.0f}"
