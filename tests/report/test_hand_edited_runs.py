"""Edited run folders: pages and tables are correct, or a one-line error names the file."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reslearn import recipes
from reslearn.report import render_html, run_page, study_page
from reslearn.runs import RunError, RunFolder
from reslearn.study import collect, degradation_verdicts, table
from reslearn.train import Machine, train_recipe

FILES = ("recipe.json", "environment.json", "result.json", "diverged.json", "metrics.jsonl")
SMALL = (
    "model.name=resnet8",
    "schedule.kind=constant",
    "schedule.duration=4 steps",
    "data.train_images=40",
    "train.batch_size=10",
    "train.read_every_steps=1",
    "evaluation.recompute_images=20",
    "evaluation.every=2 steps",
    "evaluation.test_curve=true",
)


@pytest.fixture(scope="module", autouse=True)
def constant_checksum() -> Iterator[None]:
    """Give all runs the same checksum, so that an edit is found by its content alone.

    Otherwise the checksum would reveal every edit, and edits by a user who also updates the
    checksum would not be tested.
    """
    with pytest.MonkeyPatch.context() as patch:
        for room in ("folder", "analyses"):
            patch.setattr(f"reslearn.runs.{room}.digest", lambda *parts: "0" * 16)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, constant_checksum: None) -> Path:
    """Train one run, and copy it as runs of another seed and another depth."""
    folder = tmp_path_factory.mktemp("study")
    train_recipe(recipes.load("digits", overrides=SMALL), folder / "edited", Machine(threads=1))
    for name, changes in (("seed", {"seed": 1}), ("deeper", {}), ("deeper-seed", {"seed": 1})):
        shutil.copytree(folder / "edited", folder / name)
        values = {**RunFolder(folder / name).recipe, **changes}
        values["model"]["name"] = "resnet14" if "deeper" in name else "resnet8"
        RunFolder(folder / name).write_json("recipe.json", values)
    return folder


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, "3", "\ud800", 1e308, 101]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON value, beginning with the JSON value itself."""
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    paths = [path]
    for key, child in children:
        paths += paths_in(child, (*path, key))
    return paths


def changed(value: Any, path: tuple[Any, ...], new: Any, *, remove: bool) -> Any:
    """Return `value` with the value at `path` replaced, or removed from its table or list."""
    if not path:
        return new
    copy = value.copy()
    if len(path) == 1 and remove:
        del copy[path[0]]
    elif len(path) == 1:
        copy[path[0]] = new
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], new, remove=remove)
    return copy


@st.composite
def edits(draw: st.DrawFn, content: bytes) -> bytes:
    """Change a file of JSON lines as an editor, a script or a broken connection would."""
    if draw(st.integers(0, 4)) == 0:
        positions = st.integers(0, len(content))
        start, stop = sorted(draw(st.tuples(positions, positions)))
        return content[:start] + draw(st.binary(max_size=3)) + content[stop:]
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    path = draw(st.sampled_from(paths_in(value)))
    edited = changed(value, path, draw(JSON), remove=draw(st.booleans()))
    lines[number] = json.dumps(edited).encode()
    return b"\n".join(lines) + b"\n"


def read_all(study: Path) -> None:
    """Make all pages and tables of a study and of its edited run, and check their numbers."""
    collection = collect(study)
    for row in collection.rows:
        for field, value in row.result.items():
            if field.endswith("_error_pct") and value is not None:
                assert isinstance(value, float | int) and 0 <= value <= 100
    table(collection.rows, incomplete=collection.incomplete)
    degradation_verdicts(collection.rows)
    render_html(study_page(collection))
    assert len(collection.rows) + len(collection.incomplete) == 4
    run = RunFolder.open(study / "edited")
    render_html(run_page(run))
    for kind in ("train", "test"):
        assert all(record["step"] >= 0 for record in run.metrics(kind))
    run.newest_metrics("train")
    assert run.divergence is None or isinstance(run.divergence, str)


@settings(max_examples=80)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_an_edit_is_refused_in_one_line_or_harmless(
    study: Path, data: st.DataObject, name: str
) -> None:
    path = study / "edited" / name
    before = path.read_bytes() if path.exists() else b'{"step": 3, "reason": "the loss is nan"}\n'
    path.write_bytes(data.draw(edits(before)))
    refused = ""
    try:
        read_all(study)
    except RunError as error:
        refused = str(error)
    finally:
        path.write_bytes(before)
        (study / "edited" / "diverged.json").unlink(missing_ok=True)
    # The message about a missing checksum lists the three files that the checksum covers.
    names_file = str(path.parent) in refused and path.name in refused
    assert not refused or (names_file and "\n" not in refused)


@pytest.mark.parametrize(
    ("name", "path", "new", "message"),
    [
        ("recipe.json", ("model",), 3, "model = 3: a table of keys is needed"),
        ("recipe.json", ("model", "name"), 3, "model.name = 3: a text is needed"),
        (
            "recipe.json",
            ("model", "shortcut"),
            "D",
            "model.shortcut = \"D\": input should be 'A', 'B' or 'C'",
        ),
        ("recipe.json", ("seed",), "1", 'seed = "1": a whole number is needed'),
        ("recipe.json", ("model", "color"), 2, "unknown key model.color = 2; allowed here: "),
        ("environment.json", (), [], "a JSON object is expected"),
        (
            "environment.json",
            ("numerics", "threads"),
            "2",
            'numerics.threads = "2": a whole number is needed',
        ),
        ("environment.json", ("format",), 2, "format = 2: input should be less than or equal to 1"),
        (
            "result.json",
            ("test_top1_error_pct",),
            "8.4",
            'test_top1_error_pct = "8.4": a number is needed',
        ),
        (
            "result.json",
            ("test_top1_error_pct",),
            840,
            "test_top1_error_pct = 840: input should be less than or equal to 100",
        ),
        ("result.json", ("seconds",), True, "seconds = true: a number is needed"),
        ("metrics.jsonl", ("step",), None, "line 1: step = null: a whole number is needed"),
        ("metrics.jsonl", (), 3, "line 1: a JSON object is expected"),
    ],
)
def test_the_message_names_file_key_and_value(
    study: Path, name: str, path: tuple[str, ...], new: Any, message: str
) -> None:
    file = study / "edited" / name
    before = file.read_text()
    first, *other_lines = before.splitlines() if name == "metrics.jsonl" else [before]
    edited = json.dumps(changed(json.loads(first), path, new, remove=False))
    file.write_text("\n".join([edited, *other_lines]) + "\n")
    try:
        with pytest.raises(RunError) as caught:
            run_page(study / "edited")
        collection = collect(study)
    finally:
        file.write_text(before)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)
    incomplete = [(run.name, run.reason) for run in collection.incomplete]
    assert incomplete == [("edited", str(caught.value))]
