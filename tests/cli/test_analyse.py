"""`reslearn analyse`: what it prints, what it leaves in the run, and one line for what is no run."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reslearn import recipes
from reslearn.cli.analyse import analyse
from reslearn.runs import RunError
from reslearn.train import evaluate_bundle, train_recipe

APP = typer.Typer()
APP.command()(analyse)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "resnet8"
    overrides = ["model.name=resnet8", 'schedule.duration="5 steps"', "schedule.kind=constant", "data.train_images=200"]
    train_recipe(recipes.load("digits", overrides=overrides), folder, threads=1)
    return folder


@pytest.mark.parametrize(
    ("what", "key", "row"),
    [
        ("responses", "layers", "stage3.0.body.conv2"),
        ("gradients", "moments", "weights: first third / last third"),
        ("probes", "trained", "stem"),
    ],
)
def test_every_analysis_prints_a_table_and_keeps_its_numbers(run: Path, what: str, key: str, row: str) -> None:
    shown = CliRunner().invoke(APP, [str(run), what], catch_exceptions=False)
    assert shown.exit_code == 0
    assert row in shown.output
    kept = run / "analysis" / f"{what}.json"
    assert str(kept) in shown.output
    as_json = CliRunner().invoke(APP, [str(run), what, "--json"], catch_exceptions=False)
    assert json.loads(as_json.output) == json.loads(kept.read_text())
    assert json.loads(as_json.output)[key]


def test_what_is_no_run_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder"):
        CliRunner().invoke(APP, [str(tmp_path), "probes"], catch_exceptions=False)


def test_a_run_whose_record_lacks_something_gets_one_line(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "recipe.json").write_text("{}")
    with pytest.raises(RunError, match=r"recipe\.json lacks 'data'"):
        CliRunner().invoke(APP, [str(damaged), "probes"], catch_exceptions=False)
    with pytest.raises(RunError, match=r"recipe\.json lacks 'data'"):
        evaluate_bundle(damaged)
    with pytest.raises(RunError, match="there is no such run folder or bundle"):
        evaluate_bundle(tmp_path / "nothing")
