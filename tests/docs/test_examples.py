"""Every file in examples/ runs, is short, and prints the result that its docstring promises."""

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RESULTS = {
    "compare_depths": r"Does plain degrade with depth\? yes",
    "diagnose_network": r"cause: (degradation|vanishing or exploding signal)",
    "fine_tune": r"torchvision\nloss",
    "residual_mlp": r"residual +\d+ parameters, error \d\.\d %",
    "train_resnet": r"test error \d\.\d\d % on 360 images",
}


def test_every_example_has_an_expected_result() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RESULTS)


# docs/diagnose.md has faster examples of the same kind, so this one runs in `make test-slow`.
SLOW = {"diagnose_network"}
CASES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in sorted(RESULTS)
]


@pytest.mark.parametrize("name", CASES)
def test_example_runs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setitem(os.environ, "RESLEARN_PROGRESS", "off")
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(RESULTS[name], capsys.readouterr().out)
