"""Pages made from run folders: complete, unfinished, of one seed, of two recipes; nothing but the files is needed."""

import copy
import json
import math
import random
import re

import pytest

from reslearn import recipes
from reslearn.report import Figure, Panels, Table, render_html, run_page, study_page, write_page
from reslearn.report.curves import curve, seeds_series
from reslearn.report.run import format_duration
from reslearn.runs import RunError, RunFolder
from reslearn.study.collect import collect


def make_run(
    path, model="resnet8", seed=0, *, complete=True, error=5.0, curve_of=("test",), **switches
):
    recipe = recipes.load("digits", overrides=[f"model.name={model}", f"seed={seed}"]).to_dict()
    for key, value in switches.items():
        section, _, name = key.partition("__")
        recipe[section][name] = value
    environment = {
        "versions": {"python": "3.11"},
        "device": "cpu",
        "processor": "A <b>processor</b>",
        "commit": "abc",
        "command": ["reslearn", "train", "digits", "--out", "a folder"],
        "numerics": {"precision": "fp32", "threads": 1, "compiled": False},
        "data": {"name": "digits", "fingerprint": "f00", "classes": ["0"]},
    }
    run = RunFolder.create(path, recipe, environment)
    noise = random.Random(seed)
    for step in range(20, 201, 20):
        epoch = step / 45
        value = error + 80 / step + noise.random()
        line = {
            "step": step,
            "epoch": epoch,
            "images": step * 32,
            "seconds": step / 10,
            "loss": value / 20,
            "top1_error_pct": value,
        }
        run.append_metrics({"kind": "train", **line, "lr": 0.1 if step < 100 else 0.01})
        if step % 40 == 0:
            for kind in curve_of:
                run.append_metrics({"kind": kind, **line})
    run.append_metrics(
        {
            "kind": "test",
            "step": 200,
            "epoch": 4.4,
            "seconds": 20.0,
            "loss": 0.2,
            "top1_error_pct": error + 2,
        }
    )
    if complete:
        fields = ("test", "train", "train_recomputed")
        errors = {
            f"{k}_top1_error_pct": error + i / 2 + noise.random() / 5 for i, k in enumerate(fields)
        }
        losses = {f"{field}_loss": 0.1 for field in fields}
        rest = {
            "validation_top1_error_pct": None,
            "seconds": 3725,
            "steps": 200,
            "epochs": 4.4,
            "parameters": 75_002,
            "macs": 747_136,
        }
        run.finish(
            {
                **errors,
                **losses,
                **rest,
                "test_touched": 1,
                "resumed_at": [],
                "warmed_up_at_step": None,
            }
        )
    return run


def items_of(page, kind):
    found = [item for section in page.sections for item in section.items]
    found += [figure for item in found if isinstance(item, Panels) for figure in item.figures]
    return [item for item in found if isinstance(item, kind)]


def test_a_run_says_what_it_was_and_how_to_repeat_it(tmp_path):
    make_run(tmp_path / "run")
    page = run_page(tmp_path / "run")
    html = render_html(page)
    assert page.title == "resnet8 on digits"
    assert page.facts["time"] == "1 h 02 min"
    assert {figure.name for figure in items_of(page, Figure)} == {"error", "loss", "learning-rate"}
    assert "reslearn train digits --out &#39;a folder&#39;" in html
    assert "A &lt;b&gt;processor&lt;/b&gt;" in html
    recipe = items_of(page, Table)[-1]
    assert ("model.name", "resnet8", "yes") in recipe.rows
    assert ("optimizer.momentum", "0.9", "") in recipe.rows
    assert "looked at once" in html


def test_an_unfinished_run_has_a_page_too(tmp_path):
    run = make_run(tmp_path / "run", complete=False)
    page = run_page(run)
    assert "not complete" in page.subtitle
    assert "step 200" in page.sections[0].text
    with run.metrics_path.open("w"):
        pass
    assert "no line yet" in run_page(run).sections[0].text
    with pytest.raises(RunError, match="is no run folder"):
        run_page(tmp_path)


def test_a_loss_that_was_not_finite_is_a_gap(tmp_path):
    run = make_run(tmp_path / "run")
    run.append_metrics(
        {
            "kind": "train",
            "step": 220,
            "epoch": 4.9,
            "seconds": 1,
            "loss": None,
            "top1_error_pct": 90,
            "lr": 0.1,
        }
    )
    run.finish(json.loads((run.path / "result.json").read_text()))
    loss = next(figure for figure in items_of(run_page(run), Figure) if figure.name == "loss")
    assert str(loss.series[0].y[-1]) == "nan"


@pytest.fixture
def study_folder(tmp_path):
    for depth in (8, 14):
        for seed in range(3):
            make_run(tmp_path / f"plain{depth}-{seed}", f"plain{depth}", seed, error=depth * 1.0)
            make_run(
                tmp_path / f"resnet{depth}-{seed}", f"resnet{depth}", seed, error=5.0 - depth / 10
            )
    return tmp_path


def test_a_study_has_conditions_verdicts_and_figures(study_folder, tmp_path_factory):
    page = study_page(collect(study_folder), title="Depth", margin_pct=1.0)
    conditions, training, test, verdicts = items_of(page, Table)
    assert [row[0] for row in conditions.rows] == ["plain8", "plain14", "resnet8", "resnet14"]
    assert [[row[0] for row in moved.rows] for moved in (training, test)] == [
        ["plain8 -> resnet8", "plain14 -> resnet14"]
    ] * 2
    assert training.rows[1][1] == pytest.approx(5.0 - 1.4 - 14, abs=0.5)
    assert {row[2] for row in conditions.rows} == {3}
    assert [head.name for head in conditions.heads()][3:] == [
        "training",
        "95 % interval",
        "test",
        "95 % interval",
    ]
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", conditions.rows[0][3])
    assert [(row[0], row[1]) for row in verdicts.rows] == [("plain", "yes"), ("residual", "no")]
    figures = {figure.name: figure for figure in items_of(page, Figure)}
    assert set(figures) == {"error-against-depth", "curves-plain", "curves-residual"}
    assert figures["curves-plain"].y_limits == figures["curves-residual"].y_limits
    styles = [series.style for series in figures["curves-plain"].series if series.group == "plain8"]
    assert styles == ["thin-dashed"] * 3 + ["dashed"] + ["thin"] * 3 + ["line"]
    assert {
        series.low is not None
        for series in figures["curves-plain"].series
        if series.style in ("dashed", "line")
    } == {True}
    depth = figures["error-against-depth"]
    assert [list(series.x) for series in depth.series] == [[8, 14]] * 4 * (3 + 1)
    assert [series.low is not None for series in depth.series] == [False, False, False, True] * 4
    path = write_page(page, tmp_path_factory.mktemp("page"))
    assert path.stat().st_size < 2_000_000


def test_a_study_keeps_two_recipes_apart_and_says_what_is_missing(study_folder):
    make_run(study_folder / "other", "plain8", 0, error=9.0, optimizer__lr=0.05)
    make_run(study_folder / "unfinished", "plain8", 9, complete=False)
    found = collect(study_folder)
    page = study_page(found)
    conditions, *moved, verdicts = items_of(page, Table)
    assert moved[-1].rows[0][0] == "plain8: optimizer.lr: 0.05 -> 0.1"
    names = [str(row[0]) for row in conditions.rows]
    assert sum(name.startswith("plain8 ") for name in names) == 2
    assert ("plain", "no verdict") in [(row[0], row[1]) for row in verdicts.rows]
    assert page.facts["runs"] == "13 complete, 1 not"
    assert any("unfinished" in str(item) for item in page.sections[0].items)
    render_html(page)


def test_one_run_is_a_study_without_intervals(tmp_path):
    make_run(tmp_path / "one", curve_of=())
    page = study_page(collect(tmp_path))
    (conditions,) = items_of(page, Table)
    assert [head.name for head in conditions.heads()] == [
        "network",
        "parameters",
        "n",
        "training",
        "test",
    ]
    assert "one seed, so that there is no interval" in conditions.caption
    (figure,) = items_of(page, Figure)
    assert [(series.style, len(series.x)) for series in figure.series] == [
        ("dashed", 10),
        ("line", 1),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no complete run"):
        study_page(collect(tmp_path / "empty"))


def test_validation_is_drawn_where_no_test_curve_was_recorded(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"{seed}", seed=seed, curve_of=("validation",))
    (figure,) = items_of(study_page(collect(tmp_path)), Figure)
    assert figure.styles["line"] == "validation error, mean"


def test_the_mean_is_taken_at_steps_that_all_seeds_have():
    thin_0, thin_1, mean = seeds_series(
        "net", {0: [(1, 1.0), (2, 2.0)], 1: [(2, 4.0), (3, 9.0)]}, group="g"
    )
    assert (list(mean.x), list(mean.y), mean.style) == ([2], [3.0], "line")
    assert (thin_0.name, thin_1.style) == ("net, seed 0", "thin")
    assert mean.low == pytest.approx([3.0 - 12.7062]) and mean.high == pytest.approx(
        [3.0 + 12.7062]
    )  # t of one degree of freedom
    assert seeds_series("net", {0: []}, group="g") == []
    *_, mean = seeds_series(
        "net", {0: [(1, 1.0), (2, 2.0)], 1: [(2, 4.0), (3, 9.0)]}, group="g", include_partial=True
    )
    assert (list(mean.x), list(mean.y)) == ([1, 2, 3], [1.0, 3.0, 9.0])
    (alone,) = seeds_series("net", {3: [(1, 1.0)]}, group="g", dashed=True)
    assert (alone.name, alone.style, alone.low) == ("net", "dashed", None)


def test_on_a_logarithmic_axis_means_and_intervals_are_of_logarithms():
    *_, mean = seeds_series(
        "net", {0: [(1, 1.0), (2, 0.0)], 1: [(1, 100.0), (2, 1.0)]}, group="g", log=True
    )
    assert mean.y[0] == pytest.approx(10) and mean.low[0] == pytest.approx(
        10 ** (1 - 12.7062), rel=1e-3
    )
    assert math.isnan(mean.y[1])  # 0 has no logarithm


def test_a_mean_has_a_gap_where_a_seed_diverged():
    *_, mean = seeds_series(
        "net", {0: [(1, 1.0), (2, 2.0)], 1: [(1, 2.0), (2, math.nan)]}, group="g"
    )
    assert mean.y[0] == 1.5
    assert math.isnan(mean.y[1])
    assert math.isnan(mean.low[1])
    one, mean = seeds_series("net", {0: [(1, 1.0)], 1: None}, group="g")
    assert (one.style, mean.name) == ("thin", "net, mean of 2 seeds") and math.isnan(mean.y[0])


def test_many_training_lines_are_averaged_by_epoch():
    records = [
        {"kind": "train", "step": s, "epoch": s / 10, "loss": float(s % 10 or 10)}
        for s in range(1, 201)
    ]
    averaged = curve(records, "train", "loss")
    assert len(averaged) == 20
    assert averaged[0] == (5.5, 5.5)
    assert curve(records[:50], "train", "loss")[0] == (1, 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (59.4, "59.4 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


def test_a_foreign_result_is_refused_in_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    before = copy.deepcopy(run.recipe)
    (run.path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json"):
        run_page(run.path)
    assert json.loads((run.path / "recipe.json").read_text()) == before
