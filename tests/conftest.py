"""Shared by all tests: makes the helper modules beside this file importable."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs us in the background has SIGINT ignored, and every process that a test starts would
# inherit that: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
