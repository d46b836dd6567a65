"""Make test modules importable: some use the stand-in for `reslearn train` of another module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
