"""Makes the example deployment importable, on which all of these tests run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
