"""Some test files here use the stand-in for `reslearn train` of another."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
