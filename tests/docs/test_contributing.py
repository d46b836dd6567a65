"""Apply the worked changes of CONTRIBUTING.md to a copy of the source and run their examples."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAX_CHANGED_LINES = 10


class Change(NamedTuple):
    """A worked change: its heading, its diff, and the lines that show that it works."""

    title: str
    diff: str
    shown_by: str


WORKED = re.compile(
    r"### ([^\n]+)\n(?:(?!###).)*?```diff\n(.*?)```\n```python\n(.*?)```", flags=re.DOTALL
)
CHANGES = [Change(*match) for match in WORKED.findall(TEXT)]


def apply(diff: str, folder: Path) -> None:
    """Apply a diff. Its hunks have no line numbers: their text must occur exactly once."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        old_name, new_name = re.findall(r"^(\S+)\n\+\+\+ b/(\S+)\n$", head)[0]
        path = folder / new_name
        assert path.exists() == (old_name != "/dev/null"), new_name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            assert not old or text.count(old) == 1, (
                f"{new_name}: found {text.count(old)} times:\n{old}"
            )
            text = text.replace(old, new) if old else new
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source with all changes applied."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src")  # compiled modules too
    shutil.copy(ROOT / "pyproject.toml", folder)
    for change in CHANGES:
        apply(change.diff, folder)
    return folder


def test_every_kind_of_change_is_worked() -> None:
    assert [change.title for change in CHANGES] == [
        "A network",
        "A data set",
        "A metric",
        "A recipe",
        "A section of the report",
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.title)
def test_a_change_is_short(change: Change) -> None:
    changed = [
        line for line in change.diff.splitlines() if re.match(r"[+-](?![+-]{2} )(?=.*\S.)", line)
    ]
    assert len(changed) <= MAX_CHANGED_LINES


@pytest.fixture(scope="module")
def faults(copy: Path) -> dict[str, str]:
    """Return the error of each change, by title. One process runs all: torch imports slowly."""
    code = """
import json, sys, traceback
import reslearn
assert reslearn.__file__.startswith(sys.argv[1])
faults = {}
for title, shown_by in json.load(sys.stdin).items():
    try:
        exec(compile(shown_by, title, "exec"), {})
    except Exception:
        faults[title] = traceback.format_exc()
print(json.dumps(faults))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        input=json.dumps({change.title: change.shown_by for change in CHANGES}),
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.title)
def test_a_change_does_what_it_says(change: Change, faults: dict[str, str]) -> None:
    assert change.title not in faults, faults[change.title]


def test_changes_pass_the_linter(copy: Path) -> None:
    files = {
        name
        for change in CHANGES
        for name in re.findall(r"^\+\+\+ b/(\S+\.py)$", change.diff, flags=re.MULTILINE)
    }
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", *sorted(files)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
