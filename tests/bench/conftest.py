"""benchmarks/ lies beside src/ and is not installed: `reslearn bench` puts the checkout on the path, and so do its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
