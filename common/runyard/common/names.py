"""Patterns for the names of nodes, clusters, drivers and labels, for both sides of the protocol."""

import re
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
"""Node IDs, clusters, drivers, and each half of a label key."""

LABEL_KEY: Final = re.compile(rf"({NAME.pattern}/)?{NAME.pattern}")
LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9._:/+@=-]{0,128}")
