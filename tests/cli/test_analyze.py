"""`reslearn analyze` prints tables or JSON, saves its numbers, and has one-line errors."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import typer
from typer.testing import CliRunner

from reslearn import recipes
from reslearn.cli.analyze import analyze
from reslearn.report import run_page
from reslearn.runs import RunError, RunFolder, read_analysis
from reslearn.train import Machine, evaluate_bundle, train_recipe

APP = typer.Typer()
APP.command()(analyze)


OVERRIDES = [
    "model.name=resnet8",
    'schedule.duration="5 steps"',
    "schedule.kind=constant",
    "data.train_images=200",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "resnet8"
    train_recipe(recipes.load("digits", overrides=OVERRIDES), folder, Machine(threads=1))
    return folder


@pytest.fixture(scope="module")
def second_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "resnet8-seed1"
    train_recipe(
        recipes.load("digits", overrides=[*OVERRIDES, "seed=1"]), folder, Machine(threads=1)
    )
    return folder


@pytest.mark.parametrize(
    ("what", "key", "row"),
    [
        ("responses", "layers", "stage3.0.body.conv2"),
        ("gradients", "moments", "weights: first third / last third"),
        ("probes", "trained", "stem"),
        ("lesion", "one_dropped", "stage2.0"),
        ("paths", "lengths", "effective length, blocks"),
        ("landscape --points 3 --grid 3", "line", "barrier"),
    ],
)
def test_every_analysis_prints_a_table_and_saves_its_numbers(
    run: Path, what: str, key: str, row: str
) -> None:
    printed = CliRunner().invoke(APP, [str(run), *what.split()], catch_exceptions=False)
    assert printed.exit_code == 0
    assert row in printed.output
    path = run / "analysis" / f"{what.split()[0]}.json"
    assert str(path) in printed.output
    as_json = CliRunner().invoke(APP, [str(run), *what.split(), "--json"], catch_exceptions=False)
    assert (
        {**json.loads(as_json.output), "checksum": ANY}
        == json.loads(path.read_text())
        == read_analysis(RunFolder(run), path.stem)
    )
    assert json.loads(as_json.output)[key]


def test_a_folder_without_run_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        CliRunner().invoke(APP, [str(tmp_path), "probes"], catch_exceptions=False)


def test_a_damaged_run_gets_one_line(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "recipe.json").write_text("{}")
    with pytest.raises(RunError, match="was changed after the run ended"):
        CliRunner().invoke(APP, [str(damaged), "probes"], catch_exceptions=False)
    with pytest.raises(RunError, match="was changed after the run ended"):
        evaluate_bundle(damaged)
    with pytest.raises(RunError, match="there is no such run folder or bundle"):
        evaluate_bundle(tmp_path / "nothing")


def invoke(*arguments: object) -> dict[str, Any]:
    invocation = CliRunner().invoke(APP, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert invocation.exit_code == 0, invocation.output
    return dict(json.loads(invocation.output))


def test_a_report_draws_saved_analyses(run: Path) -> None:
    for what in ("responses", "lesion", "paths", "landscape --points 5 --grid 5"):
        invoke(run, *what.split())
    titles = [section.title for section in run_page(run).sections]
    assert {"Responses of layers", "Lesions", "Lengths of paths", "Loss landscape"} <= set(titles)


def test_options_reach_their_analysis(run: Path, second_run: Path) -> None:
    lesion = invoke(run, "lesion", "--images", 20, "--draws", 2, "--seed", 5)
    assert (lesion["test_images"], lesion["seed"], len(lesion["some_dropped"][0]["draws"])) == (
        20,
        5,
        2,
    )
    assert lesion == invoke(run, "lesion", "--images", 20, "--draws", 2, "--seed", 5)
    paths = invoke(run, "paths", "--images", 16, "--draws", 3)
    assert (paths["images"], [length["num_draws"] for length in paths["lengths"]]) == (
        16,
        [1, 3, 3, 1],
    )
    line = invoke(
        run, "landscape", "--with", second_run, "--images", 30, "--points", 3, "--grid", 0
    )
    assert (line["start"], line["end"], line["images"], line["grid"]) == (
        str(run),
        str(second_run),
        30,
        None,
    )
    back = invoke(
        second_run, "landscape", "--with", run, "--images", 30, "--points", 3, "--grid", 0
    )
    ahead = [point["loss"] for point in line["line"]["points"]]
    assert [point["loss"] for point in back["line"]["points"]] == pytest.approx(
        ahead[::-1], rel=1e-5
    )
    single = invoke(run, "landscape", "--images", 30, "--points", 3, "--grid", 0)
    assert (single["start"], single["end"]) == ("step 0", "step 5")
    assert (
        single["across"][1]["loss"]
        == single["line"]["points"][-1]["loss"]
        == line["line"]["points"][0]["loss"]
    )


def test_a_line_to_a_run_of_another_recipe_gets_one_line(run: Path, tmp_path: Path) -> None:
    changes = {
        "model.name=resnet14": r'model\.name = "resnet8" and "resnet14"',
        "optimizer.lr=0.3": r"optimizer\.lr = 0\.1 and 0\.3",
    }
    for change, message in changes.items():
        train_recipe(
            recipes.load("digits", overrides=[*OVERRIDES, change]),
            tmp_path / change,
            Machine(threads=1),
        )
        with pytest.raises(RunError, match=message):
            invoke(run, "landscape", "--with", tmp_path / change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["probes", "--draws", "3"], "--draws has no effect on probes, which has --seed"),
        (["responses", "--draws", "3"], "--draws has no effect on responses, which has --images"),
        (["paths", "--with", "elsewhere"], "--with has no effect on paths"),
        (["landscape", "--grid", "2"], "--grid 2: allowed are 0"),
    ],
)
def test_an_option_without_effect_gets_one_line(
    run: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        invoke(run, *arguments)


def test_a_plain_network_has_no_paths_and_a_run_without_weights_no_analysis(
    run: Path, tmp_path: Path
) -> None:
    train_recipe(
        recipes.load("digits", overrides=[*OVERRIDES, "model.name=plain8"]),
        tmp_path / "plain8",
        Machine(threads=1),
    )
    with pytest.raises(ValueError, match="plain8 has no shortcuts: there is only one path"):
        invoke(tmp_path / "plain8", "paths")
    assert len(invoke(tmp_path / "plain8", "lesion", "--images", 20)["one_dropped"]) == 1
    (tmp_path / "plain8" / "model.safetensors").unlink()
    with pytest.raises(RunError, match="weights of this run were not saved"):
        invoke(tmp_path / "plain8", "lesion")
