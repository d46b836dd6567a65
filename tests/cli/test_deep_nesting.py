"""Deeply nested TOML and JSON from users: one line and status 2 wherever it is parsed."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.interop import WeightsError, create_model, from_pretrained, save_pretrained
from reslearn.paper.inventory import RunError, _judged

Run = Callable[..., tuple[int, str, str]]
DEPTH = 10_000
LISTS = "[" * DEPTH + "]" * DEPTH
TABLES = "{a=" * DEPTH + "1" + "}" * DEPTH
DOTTED = ".".join("a" * 2_000)  # tomllib takes a time that grows with the square of the length
DOCUMENTS = {
    "open lists": f"x = {'[' * DEPTH}",
    "lists": f"x = {LISTS}",
    "lists, not too deep for tomllib": f"x = {'[' * 300 + ']' * 300}",
    "tables": f"x = {TABLES}",
    "dotted key": f"{DOTTED} = 1",
    "table head": f"[{DOTTED}]",
    "number": f"x = {'9' * 5000}",
}
OVERRIDES = {
    "open lists": f"optimizer.lr={'[' * DEPTH}",
    "lists": f"optimizer.lr={LISTS}",
    "tables": f"data.name={TABLES}",
    "dotted key": f"{DOTTED}=1",
    "dotted key of a text": f"model.name.{DOTTED}=1",
    "number": f"optimizer.lr={'9' * 5000}",
    "no value": DOTTED,
}


def check(result: tuple[int, str, str], *words: str) -> None:
    status, output, errors = result
    assert (status, output) == (2, "")
    assert errors.startswith("reslearn: ") and errors.count("\n") == 1
    assert len(errors) < 2100
    assert [word for word in words if word not in errors] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_deep_toml_file_gets_one_line(name: str, tmp_path: Path, reslearn: Run) -> None:
    file = tmp_path / "deep.toml"
    file.write_text(DOCUMENTS[name])
    words = [str(file), "too many digits" if name == "number" else "nested more than 50 deep"]
    check(reslearn("train", "digits", "--recipe", file, "--out", tmp_path / "run"), *words)
    check(reslearn("study", file, "--out", tmp_path / "study"), *words)


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_deep_override_gets_one_line(name: str, tmp_path: Path, reslearn: Run) -> None:
    override = OVERRIDES[name]
    check(reslearn("train", "digits", "--set", override, "--out", tmp_path / "run"), override[:100])
    options = ["--models", "resnet8", "--data", "digits", "--out", tmp_path / "study"]
    check(reslearn("study", *options, "--set", override), override[:100])
    if name not in {"dotted key", "dotted key of a text"}:  # inspect has no tables
        override = f"model.shortcut={override.partition('=')[2]}" if "=" in override else override
        check(reslearn("inspect", "resnet20", "--set", override), override[:100])


@pytest.mark.parametrize("depth", [300, DEPTH])
def test_a_deep_json_file_of_a_run_gets_one_line(depth: int, tmp_path: Path, reslearn: Run) -> None:
    for name in ("recipe.json", "result.json", "environment.json"):
        run = tmp_path / name.partition(".")[0]
        run.mkdir()
        (run / "recipe.json").write_text("{}")
        (run / name).write_text('{"a": ' + "[" * depth + "]" * depth + "}")
        check(reslearn("report", run), str(run))
        check(reslearn("evaluate", run))
        check(reslearn("train", "--resume", "--out", run), str(run))


def test_a_deep_header_of_weights_gets_one_line(tmp_path: Path, reslearn: Run) -> None:
    file = tmp_path / "deep.safetensors"
    header = ('{"__metadata__": ' + '{"a": ' * DEPTH + "}" * DEPTH + "}").encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    check(reslearn("inspect", file), str(file))
    check(reslearn("train", "digits", "--init", file, "--out", tmp_path / "run"), str(file))
    check(reslearn("evaluate", file, "digits"), str(file))


def test_deep_records_of_other_files_are_refused(tmp_path: Path) -> None:
    save_pretrained(create_model("resnet8"), tmp_path)
    (config,) = tmp_path.glob("*.json")
    config.write_text('{"model": ' + "[" * DEPTH + "]" * DEPTH + "}")
    with pytest.raises(WeightsError, match="save_pretrained"):
        from_pretrained(tmp_path)
    with pytest.raises(RunError, match="reslearn paper claims"):
        _judged(config)
