"""`reslearn evaluate` of one network: tables, JSON, the saved file, and the count of its uses."""

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslearn import recipes
from reslearn.interop import read_bundle
from reslearn.runs import RunError, RunFolder, read_analysis
from reslearn.train import Machine, train_recipe

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]

OVERRIDES = [
    "model.name=resnet8",
    "schedule.kind=constant",
    'schedule.duration="40 steps"',
    "data.validation_images=100",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "digits"
    train_recipe(recipes.load("digits", overrides=OVERRIDES), folder, Machine(threads=1))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "digits")


def as_json(reslearn: Run, *arguments: object) -> dict[str, Any]:
    status, output, _ = reslearn("evaluate", *arguments, "--json")
    assert status == 0
    record: dict[str, Any] = json.loads(output)
    return record


def test_json_has_the_numbers_of_the_result_and_the_saved_evaluation(
    run: Path, reslearn: Run
) -> None:
    record, result = as_json(reslearn, run), RunFolder(run).result
    assert record["top1_error_pct"] == result["test_top1_error_pct"]
    assert record["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert record["accuracy"]["pct"] == pytest.approx(100 - record["top1_error_pct"])
    low, high = record["top1_error_interval_pct"]
    assert (100 - high, 100 - low) == pytest.approx(
        (record["accuracy"]["low_pct"], record["accuracy"]["high_pct"])
    )
    saved = read_analysis(RunFolder(run), "evaluation")
    assert saved is not None
    for name in saved.keys() - {"checksum", "mistakes", "suspected_labels"}:
        assert record[name] == saved[name]
    assert saved["mistakes"][0]["picture"] and saved["mistakes"][0]["heat_map"]
    assert "picture" not in record["mistakes"][0]
    assert record["top5_accuracy"] is None, "ten classes"


def test_probabilities_have_the_temperature_of_the_bundle(run: Path, reslearn: Run) -> None:
    temperature = read_bundle(run / "model.safetensors").temperature
    record = as_json(reslearn, run)
    assert record["temperature"] == record["scaled_calibration"]["temperature"] == temperature != 1
    confidences = [mistake["prediction_pct"] for mistake in record["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert record["num_mistakes"] >= len(confidences) > 0
    assert record["calibration"]["loss"] == pytest.approx(record["loss"], rel=1e-5)


def test_evaluations_of_the_test_images_are_counted(run: Path, reslearn: Run) -> None:
    as_json(reslearn, run)
    status, output, _ = reslearn("evaluate", run)
    assert status == 0
    assert "evaluated once by the training and 2 times by this command" in output
    assert "--images validation" in output
    validation = as_json(reslearn, run, "--images", "validation")
    assert "test_evaluations_later" not in validation
    assert validation["num_images"] == 100
    assert validation["top1_error_pct"] == RunFolder(run).result["validation_top1_error_pct"]
    assert as_json(reslearn, run)["test_evaluations_later"] == 3, "validation images do not count"
    assert sorted(path.name for path in (run / "analysis").iterdir()) == [
        "evaluation-validation.json",
        "evaluation.json",
    ]


def test_a_temperature_is_not_praised_on_the_images_it_was_fitted_on(
    run: Path, reslearn: Run
) -> None:
    _, on_validation, _ = reslearn("evaluate", run, "--images", "validation")
    _, on_test, _ = reslearn("evaluate", run)
    _, html_status, _ = reslearn("report", run)
    assert "its ECE and loss are too low" in on_validation
    assert "its ECE and loss are too low" not in on_test
    assert (run / "report.html").read_text().count("fitted on these images") == 1, html_status


def test_text_has_accuracy_beside_error_and_all_tables(run: Path, reslearn: Run) -> None:
    status, output, _ = reslearn("evaluate", run)
    assert status == 0
    first, *_ = output.splitlines()
    assert re.match(r"test accuracy (\S+) % \[.*\], error (\S+) % \[.*\], loss \S+ on 360", first)
    assert "top-5" not in output
    for heading in ("precision %", "confusions", "ECE %", "shift 4 px", "blur 1 px", "suspected"):
        assert heading in output
    assert f"reslearn report {run}" in output
    assert max(len(line) for line in output.splitlines() if "[" in line and "%" not in line) <= 80


def test_training_labels_are_not_suspected(run: Path, reslearn: Run) -> None:
    record = as_json(reslearn, run, "--images", "train")
    assert record["num_suspected_labels"] is None and record["suspected_labels"] == []


def test_a_bundle_and_named_data_are_evaluated_but_not_saved(run: Path, reslearn: Run) -> None:
    of_bundle = as_json(reslearn, run / "model.safetensors", "digits")
    named = as_json(reslearn, run, "digits")
    assert of_bundle["accuracy"] == named["accuracy"]
    assert not (run / "analysis").exists()
    assert "test_evaluations_later" not in named


def test_an_edited_evaluation_is_refused(run: Path, reslearn: Run) -> None:
    as_json(reslearn, run)
    path = run / "analysis" / "evaluation.json"
    path.write_text(path.read_text().replace('"test_evaluations_later": 1', '"x": 0'))
    with pytest.raises(RunError, match="was changed after it was written"):
        read_analysis(RunFolder(run), "evaluation")
    status, _, errors = reslearn("evaluate", run)
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(("code", "status"), [(errno.EROFS, 0), (errno.ENOSPC, 2)])
def test_a_folder_that_cannot_be_written_is_evaluated_but_a_full_disk_is_an_error(
    run: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    def fail(*arguments: object) -> Path:
        raise OSError(code, os.strerror(code), "evaluation.json")

    monkeypatch.setattr("reslearn.runs.write_analysis", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        outcome, output, errors = reslearn("evaluate", run)
    assert outcome == status
    assert os.strerror(code) in errors
    assert ("accuracy" in output) == (status == 0) and "see the page" not in output


def test_images_that_cannot_be_read_are_counted_once(
    make_pictures: Make, tmp_path: Path, reslearn: Run
) -> None:
    pictures = make_pictures(tmp_path / "pictures", classes=("a", "b"), train=5, test=3)
    (pictures / "train" / "a" / "empty.png").touch()
    (pictures / "train" / "b" / "bad.png").write_bytes(b"no picture")
    options = ["--model", "resnet8", "--set", "data.size_px=16", "--set", "schedule.kind=constant"]
    options += ["--set", "schedule.duration=1 step", "--set", "train.batch_size=8"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert reslearn("train", pictures, *options, "--out", tmp_path / "run")[0] == 0
        status, _, errors = reslearn("evaluate", tmp_path / "run", "--no-views")
    assert (status, errors.count("left out")) == (0, 1)


def test_pictures_are_named_by_their_files_and_have_views(
    make_pictures: Make, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = make_pictures(
        tmp_path / "pictures",
        classes=("blue", "green", f"red {'x' * 80}"),
        train=5,
        validation=2,
        test=3,
    )
    options = ["--model", "resnet8", "--set", "data.size_px=16", "--set", "schedule.kind=constant"]
    options += ["--set", "schedule.duration=1 step", "--set", "train.batch_size=8"]
    monkeypatch.chdir(tmp_path)
    assert reslearn("train", "pictures", *options, "--out", tmp_path / "run")[0] == 0
    monkeypatch.chdir("/")  # the run finds its pictures from everywhere
    record = as_json(reslearn, tmp_path / "run")
    files = {path.relative_to(pictures).as_posix() for path in (pictures / "test").rglob("*.*")}
    assert record["mistakes"]
    for mistake in record["mistakes"]:
        assert mistake["file"] in files
        assert mistake["file"].split("/")[1] == record["classes"][mistake["label"]]["name"]
    output = reslearn("evaluate", tmp_path / "run", "--no-views")[1]
    assert all(mistake["file"] in output for mistake in record["mistakes"]), "none is cut off"
    assert [view["protocol"] for view in record["views"]] == ["single", "ten-crop", "multi-scale"]
    assert record["views"][0]["accuracy"] == record["accuracy"]
    assert record["temperature"] is None, "six validation images are too few"
    _check_unreadable_pictures_are_left_out(pictures, tmp_path / "run", record, reslearn)
    without = as_json(reslearn, tmp_path / "run", "--no-views")
    assert without["views"] == [] and "--no-views" in without["why_no_views"]
    status, _, errors = reslearn("evaluate", tmp_path / "run", "--views", "--protocol", "ten-crop")
    assert (status, errors.count("\n")) == (2, 1)


def test_a_run_that_left_its_pictures_on_disk_is_evaluated(
    make_pictures: Make, tmp_path: Path, reslearn: Run
) -> None:
    """The record knows where they stayed. A CSV file names them by absolute paths."""
    pictures = make_pictures(tmp_path / "pictures", train=5, test=3)
    rows = []
    for path in sorted(pictures.rglob("*.*")):
        rows.append(f"{path},{path.parent.name},{path.parent.parent.name}\n")
    table = tmp_path / "table" / "labels.csv"
    table.parent.mkdir()
    table.write_text("path,label,split\n" + "".join(rows))
    options = ["--recipe", "photos", "--model", "resnet8", "--set", 'data.store="disk"']
    options += ["--set", "data.size_px=16", "--set", "schedule.duration=1 step"]
    options += ["--set", "train.batch_size=8", "--set", "model.stem=cifar"]
    status, _, errors = reslearn("train", table, *options, "--out", tmp_path / "run")
    assert status == 0, errors
    record = as_json(reslearn, tmp_path / "run", "--no-views")
    assert all(Path(mistake["file"]).is_file() for mistake in record["mistakes"])
    result = RunFolder(tmp_path / "run").result
    assert record["top1_error_pct"] == result["test_top1_error_pct"]
    assert reslearn("analyze", tmp_path / "run", "responses")[0] == 0


def _check_unreadable_pictures_are_left_out(
    pictures: Path, run: Path, record: dict[str, Any], reslearn: Run
) -> None:
    """Streamed from disk by the bundle; the first file is broken, so indices move."""
    broken = pictures / "test" / "blue" / "0.jpg"
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, output, errors = reslearn(
            "evaluate", run / "model.safetensors", pictures, "--no-views", "--json"
        )
    assert (status, errors.count("1 of 9 images")) == (0, 1), "met once, and not read again"
    streamed = json.loads(output)
    broken.write_bytes(content)
    assert streamed["num_images"] == record["num_images"] - 1
    mistakes = [mistake for mistake in record["mistakes"] if mistake["file"] != "test/blue/0.jpg"]
    assert [(mistake["file"], mistake["label"]) for mistake in streamed["mistakes"]] == [
        (mistake["file"], mistake["label"]) for mistake in mistakes
    ]


def test_report_evaluates_on_request(run: Path, reslearn: Run) -> None:
    assert reslearn("report", run)[0] == 0
    assert "was not evaluated in detail" in (run / "report.html").read_text()
    assert reslearn("report", run, "--evaluate")[0] == 0
    page = (run / "report.html").read_text()
    assert "Accuracy by class" in page and 'alt="heat map"' in page
    assert "not evaluated in detail" not in page
    assert read_analysis(RunFolder(run), "evaluation") is not None
    status, _, errors = reslearn("report", run, run, "--evaluate")
    assert (status, errors.count("\n")) == (2, 1)
    assert "--evaluate needs one run" in errors
