"""Pages of run folders: complete or not, one seed or several, one recipe or two."""

import copy
import itertools
import json
import math
import random
import re
import shutil

import pytest

from reslearn import recipes
from reslearn.report import Figure, Table, render_html, run_page, study_page, write_page
from reslearn.report.curves import curve, interval_note, learning_rate_curve, seeds_series
from reslearn.report.run import format_duration
from reslearn.report.svg import is_single_run
from reslearn.runs import RunError, RunFolder
from reslearn.study.collect import collect

ENVIRONMENT = {
    "versions": {"python": "3.11"},
    "device": "cpu",
    "processor": "A <b>processor</b>",
    "commit": "abc",
    "command": ["reslearn", "train", "digits", "--out", "a folder"],
    "numerics": {"precision": "fp32", "threads": 1, "compiled": False},
    "data": {"name": "digits", "fingerprint": "f00", "classes": ["0"]},
}


def make_run(
    path, model="resnet8", seed=0, *, complete=True, error=5.0, curve_of=("test",), **switches
):
    """Write a run folder with invented numbers; `switches` are recipe keys, as section__key."""
    recipe = recipes.load("digits", overrides=[f"model.name={model}", f"seed={seed}"]).to_dict()
    for key, value in switches.items():
        section, _, name = key.partition("__")
        recipe[section][name] = value
    run = RunFolder.create(path, recipe, ENVIRONMENT)
    noise = random.Random(seed)
    write_metrics(run, error, noise, curve_of)
    if complete:
        run.finish(invented_result(error, noise))
    return run


def metrics_line(kind, step, error_pct, **values):
    times = {"epoch": step / 45, "images": step * 32, "seconds": step / 10}
    return {"kind": kind, "step": step, **times, "top1_error_pct": error_pct, **values}


def write_metrics(run, error, noise, curve_of):
    for step in range(20, 201, 20):
        value = error + 80 / step + noise.random()
        learning_rate = 0.1 if step < 100 else 0.01
        run.append_metrics(metrics_line("train", step, value, loss=value / 20, lr=learning_rate))
        if step % 40 == 0:
            for kind in curve_of:
                run.append_metrics(metrics_line(kind, step, value, loss=value / 20))
    run.append_metrics(metrics_line("test", 200, error + 2, loss=0.2))


def invented_result(error, noise):
    result = {
        "validation_top1_error_pct": None,
        "seconds": 3725,
        "steps": 200,
        "epochs": 4.4,
        "parameters": 75_002,
        "macs": 747_136,
        "test_touched": 1,
        "resumed_at": [],
        "warmed_up_at_step": None,
    }
    for index, images in enumerate(("test", "train", "train_recomputed")):
        result[f"{images}_top1_error_pct"] = error + index / 2 + noise.random() / 5
        result[f"{images}_loss"] = 0.1
    return result


def items_of(page, kind):
    """Return the elements of one kind; figures of panels and of the lead are included."""
    if kind is Figure:
        return page.figures()
    items = itertools.chain.from_iterable(section.items for section in page.sections)
    return [item for item in items if isinstance(item, kind)]


def test_a_run_page_has_result_recipe_and_commands(tmp_path):
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
    assert "evaluated once" in html


def test_an_incomplete_run_has_a_page(tmp_path):
    run = make_run(tmp_path / "run", complete=False)
    page = run_page(run)
    assert "not complete" in page.subtitle
    assert "last recorded step is 200" in page.sections[0].text
    with run.metrics_path.open("w"):
        pass
    assert "not recorded any step" in run_page(run).sections[0].text
    with pytest.raises(RunError, match="is not a run folder"):
        run_page(tmp_path)


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path):
    run = make_run(tmp_path / "run")
    run.append_metrics(metrics_line("train", 220, 90, loss=None, lr=0.1))
    run.finish(json.loads((run.path / "result.json").read_text()))
    loss = next(figure for figure in items_of(run_page(run), Figure) if figure.name == "loss")
    assert str(loss.series[0].y[-1]) == "nan"


@pytest.fixture
def study_folder(tmp_path):
    for depth in (8, 14):
        for seed in range(3):
            make_run(tmp_path / f"plain{depth}-{seed}", f"plain{depth}", seed, error=depth * 1.0)
            resnet = f"resnet{depth}"
            make_run(tmp_path / f"{resnet}-{seed}", resnet, seed, error=5.0 - depth / 10)
    return tmp_path


def test_a_study_page_has_errors_verdicts_and_figures(study_folder, tmp_path_factory):
    page = study_page(collect(study_folder), title="Depth", margin_pct=1.0)
    errors, training, test, verdicts = items_of(page, Table)
    assert [row[0] for row in errors.rows] == ["plain8", "plain14", "resnet8", "resnet14"]
    for differences in (training, test):
        changes = [row[0] for row in differences.rows]
        assert changes == ["plain8 → resnet8", "plain14 → resnet14"]
    assert training.rows[1][1] == pytest.approx(5.0 - 1.4 - 14, abs=0.5)
    assert {row[2] for row in errors.rows} == {3}
    heads = [head.name for head in errors.heads()]
    assert heads[3:] == ["training", "95 % interval", "test", "95 % interval"]
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", errors.rows[0][3])
    assert re.fullmatch(r"\[−?\d+\.\d\d, \d+\.\d\d\]", errors.rows[0][4])
    assert [(row[0], row[1]) for row in verdicts.rows] == [("plain", "yes"), ("residual", "no")]
    figures = {figure.name: figure for figure in items_of(page, Figure)}
    assert set(figures) == {"error-against-depth", "curves-plain", "curves-residual"}
    assert figures["curves-plain"].y_limits == figures["curves-residual"].y_limits
    styles = [series.style for series in figures["curves-plain"].series if series.group == "plain8"]
    assert styles == ["thin-dashed"] * 3 + ["dashed"] + ["thin"] * 3 + ["line"]
    bold = [series for series in figures["curves-plain"].series if not is_single_run(series)]
    assert all(series.low is not None for series in bold)
    depth = figures["error-against-depth"]
    assert [list(series.x) for series in depth.series] == [[8, 14]] * 4 * (3 + 1)
    assert [series.low is not None for series in depth.series] == [False, False, False, True] * 4
    path = write_page(page, tmp_path_factory.mktemp("page"))
    assert path.stat().st_size < 2_000_000


def test_a_study_page_separates_two_recipes_and_names_incomplete_runs(study_folder):
    make_run(study_folder / "other", "plain8", 0, error=9.0, optimizer__lr=0.05)
    make_run(study_folder / "unfinished", "plain8", 9, complete=False)
    page = study_page(collect(study_folder))
    errors, *differences, verdicts = items_of(page, Table)
    assert differences[-1].rows[0][0] == "plain8: optimizer.lr: 0.05 → 0.1"
    names = [str(row[0]) for row in errors.rows]
    assert sum(name.startswith("plain8 ") for name in names) == 2
    assert ("plain", "no verdict") in [(row[0], row[1]) for row in verdicts.rows]
    assert page.facts["runs"] == "13 complete, 1 incomplete"
    assert any("unfinished" in str(item) for item in page.sections[0].items)
    render_html(page)


def test_one_run_is_a_study_without_intervals(tmp_path):
    make_run(tmp_path / "one", curve_of=())
    page = study_page(collect(tmp_path))
    (errors,) = items_of(page, Table)
    heads = [head.name for head in errors.heads()]
    assert heads == ["network", "parameters", "n", "training", "test"]
    assert "one seed, so there is no interval" in errors.caption
    (figure,) = items_of(page, Figure)
    lengths = [(series.style, len(series.x)) for series in figure.series]
    assert lengths == [("dashed", 10), ("line", 1)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no complete run"):
        study_page(collect(tmp_path / "empty"))


def test_diverged_runs_stand_in_the_table_of_errors(tmp_path):
    make_run(tmp_path / "0", "plain8", 0)
    for model, seed in (("plain8", 1), ("resnet8", 0), ("resnet8", 1)):
        run = make_run(tmp_path / f"{model}-{seed}", model, seed, complete=False)
        run.finish_diverged(200, "the loss is nan")
    page = study_page(collect(tmp_path))
    (errors,) = items_of(page, Table)
    texts = [" ".join(map(str, row)) for row in errors.rows]
    assert "(1 diverged)" in texts[0]
    assert texts[1].startswith("resnet8 None 0 2 diverged")
    assert page.facts["runs"] == "1 complete, 3 diverged"
    (tmp_path / "0" / "result.json").unlink()
    with pytest.raises(ValueError, match=r"to finish a stopped run: reslearn train --resume"):
        study_page(collect(tmp_path))
    shutil.rmtree(tmp_path / "0")
    with pytest.raises(ValueError, match=r"every run diverged: change the recipe") as error:
        study_page(collect(tmp_path))
    assert "--resume" not in str(error.value)


def test_validation_error_is_drawn_if_no_test_curve_was_recorded(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"{seed}", seed=seed, curve_of=("validation",))
    (figure,) = items_of(study_page(collect(tmp_path)), Figure)
    assert figure.styles["line"] == "validation, mean"


def test_the_learning_rate_is_drawn_as_recorded_and_not_averaged():
    readings = [
        {"kind": "train", "step": step, "epoch": step / 500, "lr": 0.1 if step < 3000 else 0.01}
        for step in range(50, 5001, 50)
    ]
    # A run of an earlier version: the change lies between two readings.
    corners = [(50, 0.1), (2950, 0.1), (3000, 0.01), (5000, 0.01)]
    assert learning_rate_curve(readings) == corners
    changes = [
        {"kind": "lr", "step": 1, "epoch": 0.0, "lr": 0.1},
        {"kind": "lr", "step": 2960, "epoch": 5.9, "lr": 0.01, "previous_lr": 0.1},
    ]
    corners = [(1, 0.1), (2959, 0.1), (2960, 0.01), (5000, 0.01)]
    assert learning_rate_curve([*readings[:58], *changes, *readings[59:]]) == corners
    assert learning_rate_curve(changes[:1]) == [(1, 0.1)]
    assert learning_rate_curve([{"kind": "train", "step": 50, "lr": None}]) == []


def test_the_mean_is_computed_at_steps_that_all_seeds_have():
    curves = {0: [(1, 1.0), (2, 2.0)], 1: [(2, 4.0), (3, 9.0)]}
    thin_0, thin_1, mean = seeds_series("net", curves, group="g")
    assert (list(mean.x), list(mean.y), mean.style) == ([2], [3.0], "line")
    assert (thin_0.name, thin_1.style) == ("net, seed 0", "thin")
    t_of_one_degree_of_freedom = 12.7062
    assert mean.low == pytest.approx([3.0 - t_of_one_degree_of_freedom])
    assert mean.high == pytest.approx([3.0 + t_of_one_degree_of_freedom])
    assert seeds_series("net", {0: []}, group="g") == []
    *_, mean = seeds_series("net", curves, group="g", include_partial=True)
    assert (list(mean.x), list(mean.y)) == ([1, 2, 3], [1.0, 3.0, 9.0])
    (alone,) = seeds_series("net", {3: [(1, 1.0)]}, group="g", dashed=True)
    assert (alone.name, alone.style, alone.low) == ("net", "dashed", None)


def test_on_a_logarithmic_axis_means_and_intervals_are_geometric():
    curves = {0: [(1, 1.0), (2, 0.0)], 1: [(1, 100.0), (2, 1.0)]}
    *_, mean = seeds_series("net", curves, group="g", log=True)
    assert mean.y[0] == pytest.approx(10)
    assert mean.low[0] == pytest.approx(10 ** (1 - 12.7062), rel=1e-3)
    assert math.isnan(mean.y[1])  # 0 has no logarithm


def test_a_mean_has_a_gap_where_a_seed_diverged():
    curves = {0: [(1, 1.0), (2, 2.0)], 1: [(1, 2.0), (2, math.nan)]}
    *_, mean = seeds_series("net", curves, group="g")
    assert mean.y[0] == 1.5
    assert math.isnan(mean.y[1])
    assert math.isnan(mean.low[1])
    single, mean = seeds_series("net", {0: [(1, 1.0)], 1: None}, group="g")
    assert (single.style, mean.name) == ("thin", "net, mean of 2 seeds")
    assert math.isnan(mean.y[0])


def test_the_note_on_shading_names_the_number_of_seeds():
    assert interval_note(1) == ""
    assert "95 % confidence interval of the mean (4 seeds)" in interval_note(4)
    assert "(3 to 5 seeds)" in interval_note(5, 3) and "geometric" not in interval_note(4)
    assert "geometric" in interval_note(4, log=True)


def test_many_training_lines_are_averaged_by_epoch():
    records = []
    for step in range(1, 201):
        loss = float(step % 10 or 10)
        records.append({"kind": "train", "step": step, "epoch": step / 10, "loss": loss})
    averaged = curve(records, "train", "loss")
    assert len(averaged) == 20
    assert averaged[0] == (5.5, 5.5)
    assert curve(records[:50], "train", "loss")[0] == (1, 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (59.4, "59.4 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert format_duration(seconds) == text


def test_a_truncated_result_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    before = copy.deepcopy(run.recipe)
    (run.path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json"):
        run_page(run.path)
    assert json.loads((run.path / "recipe.json").read_text()) == before
