"""`reslearn study DATA --depth`: seeds in rounds, networks that are given up, the page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reslearn.cli.depth_plan import DepthPlan, DepthRequest, make_plan
from reslearn.cli.depth_study import has_time
from reslearn.runs import RunFolder
from reslearn.study.depth import ladder

Run = Callable[..., tuple[int, str, str]]

COMMAND = ("study", "digits", "--depth", "8,14,20", "--seeds", "3", "--jobs", "1", "--out")
PLAN = DepthPlan(
    models=("resnet8", "resnet14", "resnet20"),
    recipe="digits",
    data="digits",
    overrides=("data.validation_images=144",),
    seeds=3,
    margin_pct=2.0,
    validation_images=144,
    size_px=8,
)
ERRORS = {
    "resnet8": (40.0, 41.0, 39.0),  # clearly worse: needs one seed only
    "resnet14": (10.5, 10.4, 10.6),
    "resnet20": (10.0, 10.0, 10.0),
}


def finish_runs(out: Path) -> None:
    """Write the runs that the study would train, with results of our choice."""
    for seed in range(PLAN.seeds):
        for job in PLAN.jobs(PLAN.models, seed, out, []):
            recipe = job.recipe.to_dict()
            recipe["model"].update(num_classes=10, in_channels=1)
            run = RunFolder.create(job.folder, recipe, {"data": {"name": "digits"}})
            error = ERRORS[job.recipe.model.name][seed]
            run.finish(
                {
                    "train_top1_error_pct": 5.0,
                    "validation_top1_error_pct": error,
                    "test_top1_error_pct": error,
                    "steps": 20,
                    "seconds": 1.0,
                }
            )


def test_the_smallest_network_that_is_not_worse_is_recommended(
    reslearn: Run, tmp_path: Path
) -> None:
    finish_runs(tmp_path)
    status, output, errors = reslearn(*COMMAND, tmp_path)
    assert (status, errors) == (0, "")
    assert "given up: resnet8" in output and output.count("given up") == 1
    assert "seed 2: mean validation error in percent: resnet14 10.50, resnet20 10.00" in output
    assert "recommended: resnet14. resnet14 is not worse than resnet20, the best" in output
    assert "for other images of this kind, the error of resnet20 is 10.0 % [" in output
    record = json.loads((tmp_path / "depth.json").read_text())
    assert record["plan"]["models"] == list(PLAN.models)
    assert record["verdict"]["given_up"] == ["resnet8"]
    assert set(record["latency_ms"]) == set(PLAN.models)
    page = (tmp_path / "report.html").read_text()
    assert "How deep for digits?" in page and "Validation error against latency" in page
    # A continued study repeats the recorded plan, whatever its options are, and says so.
    status, output, errors = reslearn(*COMMAND, tmp_path, "--depth", "8,56", "--json")
    assert status == 0 and "continues as it was planned" in errors
    assert json.loads(output)["verdict"]["smallest"] == "resnet14"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "8"], "two or more depths are needed"),
        (["--depth", "deep"], "--depth deep: give auto or numbers of layers, as in 8,20,56"),
        (["--depth", "9,10"], "resnet9"),
        (["--data", "digits"], "--depth needs the data"),
    ],
)
def test_a_wrong_ladder_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, reslearn: Run, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    depth = [] if "--depth" in arguments else ["--depth", "8,14"]
    status, output, errors = reslearn("study", "digits", *depth, *arguments, "--out", out)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors and not out.exists()


@pytest.mark.parametrize(
    ("overrides", "family"),
    [
        (("data.size_px=64",), "resnet20"),
        (("data.size_px=65",), "resnet18"),
        (("data.size_px=32", "model.name=resnet34"), "resnet18"),
        (("data.size_px=96", "model.name=plain20"), "plain20"),
    ],
)
def test_the_size_or_the_user_chooses_the_ladder(
    overrides: tuple[str, ...], family: str, make_pictures: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "photos", train=2, test=1)
    settings = (*overrides, 'schedule.duration="2 epochs"')
    request = DepthRequest(
        data=str(folder),
        depth="auto",
        seeds=1,
        recipe=None,
        minutes=None,
        margin_pct=2.0,
        overrides=settings,
        data_dir=None,
        jobs=1,
    )
    plan = make_plan(request)
    assert plan.models == ladder(family)
    jobs = plan.jobs(plan.models, 0, tmp_path, [])
    assert [job.recipe.model.name for job in jobs] == list(plan.models)


@pytest.mark.parametrize(
    ("seconds", "num_seeds", "expected"),
    [
        (1000.0, 1, True),  # two seeds are always trained
        (400.0, 2, True),  # the third ends after exactly ten minutes
        (401.0, 2, False),
        (450.0, 3, True),
        (451.0, 3, False),
    ],
)
def test_a_further_seed_must_fit_into_the_minutes(
    seconds: float, num_seeds: int, expected: bool
) -> None:
    plan = replace(PLAN, minutes=10.0)
    assert has_time(plan, seconds, num_seeds) == expected
    assert has_time(PLAN, seconds, num_seeds)  # no minutes, no limit


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": {"models": 3}}', '{"plan": 1}'])
def test_a_damaged_record_is_one_line(reslearn: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "depth.json").write_text(text)
    status, output, errors = reslearn(*COMMAND, tmp_path)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "depth.json is damaged: choose another --out" in errors
