"""Put the checkout on the path, as `reslearn bench` does: benchmarks/ is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
