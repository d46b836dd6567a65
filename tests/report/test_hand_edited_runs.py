"""Run folders that somebody edited: whatever was written into them, pages and tables are right, or refused in one line that says where."""

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
from reslearn.train import train_recipe

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
def one_checksum() -> Iterator[None]:
    """All runs have the same: any edit would be told by its own, and what an editor makes who seals anew would go unseen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reslearn.runs.folder._digest", lambda *parts: "0" * 16)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, one_checksum: None) -> Path:
    """A real run, and copies of it that say that they are of another seed and of another depth."""
    folder = tmp_path_factory.mktemp("study")
    train_recipe(recipes.load("digits", overrides=SMALL), folder / "edited", threads=1)
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


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the whole of it first."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def changed(value: Any, at: tuple[Any, ...], new: Any, *, remove: bool) -> Any:
    """`value` with what is at a place replaced, or removed from its table or list."""
    if not at:
        return new
    copy = value.copy()
    if remove and len(at) == 1:
        del copy[at[0]]
    else:
        copy[at[0]] = changed(value[at[0]], at[1:], new, remove=remove) if at[1:] else new
    return copy


@st.composite
def edits(draw: st.DrawFn, content: bytes) -> bytes:
    """What an editor, a script or a cut connection makes of a file of JSON lines."""
    if draw(st.integers(0, 4)) == 0:
        start, stop = sorted(
            draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content))))
        )
        return content[:start] + draw(st.binary(max_size=3)) + content[stop:]
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    at = draw(st.sampled_from(places(value)))
    lines[number] = json.dumps(changed(value, at, draw(JSON), remove=draw(st.booleans()))).encode()
    return b"\n".join(lines) + b"\n"


def read_all(study: Path) -> None:
    """Pages and tables of a study and of its edited run; RunError in one line, or right numbers."""
    found = collect(study)
    for row in found.rows:
        for field, value in row.result.items():
            assert (
                not field.endswith("_error_pct")
                or value is None
                or (isinstance(value, float | int) and 0 <= value <= 100)
            )
    table(found.rows, incomplete=found.incomplete)
    degradation_verdicts(found.rows)
    render_html(study_page(found))
    assert len(found.rows) + len(found.incomplete) == 4
    run = RunFolder.open(study / "edited")
    render_html(run_page(run))
    for kind in ("train", "test"):
        assert all(record["step"] >= 0 for record in run.metrics(kind))
    run.newest_metrics("train")
    assert run.divergence is None or isinstance(run.divergence, str)


@settings(max_examples=80)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_an_edit_is_refused_in_one_line_or_does_no_harm(
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
    assert not refused or (str(path) in refused and "\n" not in refused)


@pytest.mark.parametrize(
    ("name", "at", "new", "tells"),
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
        ("environment.json", (), [], "a table is expected"),
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
        ("metrics.jsonl", (), 3, "line 1: a table is expected"),
    ],
)
def test_the_line_names_file_key_and_value(
    study: Path, name: str, at: tuple[str, ...], new: Any, tells: str
) -> None:
    path = study / "edited" / name
    before = path.read_text()
    first, *others = before.splitlines() if name == "metrics.jsonl" else [before]
    path.write_text(
        "\n".join([json.dumps(changed(json.loads(first), at, new, remove=False)), *others]) + "\n"
    )
    try:
        with pytest.raises(RunError) as refused:
            run_page(study / "edited")
        found = collect(study)
    finally:
        path.write_text(before)
    assert str(path) in str(refused.value)
    assert tells in str(refused.value)
    assert [(run.name, run.reason) for run in found.incomplete] == [("edited", str(refused.value))]
