"""Commands print valid JSON."""

import json
import math
import re
from pathlib import Path

import pytest

import reslearn.cli
from reslearn.cli.output import print_json


def test_numbers_that_are_not_finite_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": math.nan, "losses": (math.inf, 1.5), "path": Path("runs")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"loss": None, "losses": [None, 1.5], "path": "runs"}
    assert "NaN" not in text and "Infinity" not in text


def test_every_command_prints_json_by_this_function() -> None:
    faults = []
    for path in Path(reslearn.cli.__file__).parent.glob("*.py"):
        if path.name == "output.py":
            continue
        faults += [
            f"{path.name}: {line}"
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(r"print\(.*dumps\(|echo\(.*dumps\(", line)
        ]
    assert faults == []
