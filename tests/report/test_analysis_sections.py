"""Analyses of a run become sections of its page, and a study page shows Fig. 7 of its networks."""

import json
import math
import re

import pytest

from reslearn.report import (
    Figure,
    HeatMap,
    Page,
    Panels,
    Section,
    render_html,
    run_page,
    study_page,
    write_page,
)
from reslearn.report.heat import draw_heat, shades
from reslearn.report.png import figure_png
from reslearn.report.responses import response_figures
from reslearn.report.write import figure_csv
from reslearn.runs import RunError, RunFolder, write_analysis
from reslearn.study import collect

HOSTILE = "<script>alert(1)</script>"


def measured(error):
    return {"loss": error / 20, "top1_error_pct": error}


def spread(error):
    return {"draws": [measured(error)] * 2, "mean_top1_error_pct": error, "sd_top1_error_pct": 3.0}


def path_length(number, norm):
    return {
        "length": number,
        "paths_pct": 25.0,
        "contribution_pct": 30.0,
        "mean_gradient_norm": norm,
        "least_gradient_norm": norm,
        "greatest_gradient_norm": norm,
    }


def gradient_moment(step, norm):
    return {
        "step": step,
        "weights": [{"name": "a", "norm": 0.1}, {"name": "b", "norm": norm}],
        "signal": [{"name": "c", "norm": norm}],
        "weights_ratio": 1.0,
        "signal_ratio": norm,
    }


def probes(error):
    return [{"stage": "stem", "dimension": 16, "test_error_pct": error}] * 4


def point(at, error):
    return {"at": at, **measured(error)}


RECORDS = {
    "responses": {
        "model": HOSTILE,
        "images": 300,
        "reads": "",
        "layers": [
            {"layer": f"conv{i}", "standard_deviation": deviation, "gamma_rms": 1.0}
            for i, deviation in enumerate((1.0, 3.0, 2.0))
        ],
    },
    "gradients": {
        "model": "resnet8",
        "images": 300,
        "reads": "",
        "moments": [gradient_moment(0, 0.5), gradient_moment(20, None)],
    },
    "probes": {
        "model": "resnet8",
        "train_images": 300,
        "test_images": 100,
        "reads": "",
        "trained": probes(5.0),
        "untrained": probes(60.0),
    },
    "lesion": {
        "model": "plain14",
        "test_images": 100,
        "intact": measured(7.0),
        "not_droppable": ["stage2.0"],
        "one_dropped": [
            {"block": "stage1.0", "number": 1, **measured(9.0)},
            {"block": HOSTILE, "number": 3, **measured(50.0)},
        ],
        "some_dropped": [{"num_blocks": 1, **spread(30.0)}, {"num_blocks": 2, **spread(99.0)}],
        "reordered": [{"num_swaps": 1, "mean_kendall_tau": 0.9, **spread(12.0)}],
    },
    "paths": {
        "model": "resnet8",
        "images": 128,
        "num_blocks": 2,
        "lengths": [path_length(0, 0.1), path_length(1, 0.01), path_length(2, 0.0)],
        "mean_length": 1.0,
        "effective_length": 0.5,
        "low": 0,
        "high": 1,
        "within_pct": 75.0,
        "short_pct": 60.0,
    },
    "landscape": {
        "model": "resnet8",
        "images": 500,
        "start": "step 0",
        "end": HOSTILE,
        "line": {
            "points": [point(0.0, 2.0), point(0.5, 90.0), point(1.0, 4.0)],
            "barrier_loss": 4.35,
            "barrier_top1_error_pct": None,
        },
        "across": [point(-1.0, 50.0), point(0.0, 2.0), point(1.0, 60.0)],
        "grid": {
            "distances": [-1.0, 0.0, 1.0],
            "loss": [[3.0, 2.0, None], [1.0, 0.1, 1.0], [4.0, 2.0, 3.0]],
            "top1_error_pct": [],
        },
    },
}
FIGURES = {
    "responses": ["responses", "responses-sorted"],
    "gradients": ["gradients-weights", "gradients-signal"],
    "probes": ["probes"],
    "lesion": ["lesion-block", "lesion-number", "lesion-order"],
    "paths": ["paths-gradient", "paths-contribution"],
    "landscape": ["line-loss", "line-error", "across", "landscape"],
}


def make_run(path, model="resnet8", seed=0, analyses=()):
    recipe = {"name": "digits", "seed": seed, "model": {"name": model}, "data": {"name": "digits"}}
    run = RunFolder.create(path, recipe, {})
    run.finish({"train_top1_error_pct": 1.0, "test_top1_error_pct": 2.0, "seconds": 3.0})
    for name, record in dict(analyses).items():
        write_analysis(run, name, record)
    return run


def figures_of(page):
    return {figure.name: figure for figure in page.figures()}


@pytest.mark.parametrize("name", RECORDS)
def test_each_analysis_has_a_section(name, tmp_path):
    page = run_page(make_run(tmp_path / "run", analyses={name: RECORDS[name]}))
    assert list(figures_of(page)) == FIGURES[name]
    html = render_html(page)
    assert HOSTILE not in html
    assert all(f'id="figure-{figure}"' in html for figure in FIGURES[name])


def test_a_page_shows_all_known_analyses(tmp_path):
    unknown = {"something-else": {"of": "a later version"}}
    run = make_run(tmp_path / "run", analyses=RECORDS | unknown)
    page = run_page(run)
    titles = [section.title for section in page.sections]
    assert titles[2:8] == [
        "Responses of layers",
        "Gradients by layer",
        "Linear probes",
        "Lesions",
        "Lengths of paths",
        "Loss landscape",
    ]
    drawn = figures_of(page)
    assert list(drawn["responses-sorted"].series[0].y) == [3, 2, 1]
    # Block 2 changes the shape, so it cannot be removed and has no point.
    assert list(drawn["lesion-block"].series[0].x) == [1, 3]
    assert list(drawn["lesion-number"].series[0].high) == [33, 100]  # no error is above 100 %
    assert drawn["paths-gradient"].y_log and drawn["gradients-signal"].y_log
    text = {section.title: section.text for section in page.sections}
    assert "0.5 at step 0, not a finite number at step 20" in text["Gradients by layer"]
    assert (
        f"The most important block is {HOSTILE}: without it, the error is 50.00 %"
        in text["Lesions"]
    )
    assert "Paths of 0 to 1 bodies, 75 % of all" in text["Lengths of paths"]
    assert "4.35 nats" in drawn["line-loss"].caption


def test_a_page_with_a_heat_map_is_written(tmp_path):
    write_page(Page("p", "", [Section("s", "", [heat([[1.0, 2.0]])])]), tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"h.csv", "h.png"}


def test_without_a_grid_there_is_no_heat_map(tmp_path):
    landscape = RECORDS["landscape"] | {"grid": None}
    page = run_page(make_run(tmp_path / "run", analyses={"landscape": landscape}))
    assert not any(isinstance(figure, HeatMap) for figure in page.figures())


@pytest.mark.parametrize(
    "record",
    [{}, {"layers": 3, "images": 1, "model": "m"}, {"layers": [1], "images": 1, "model": "m"}],
)
def test_an_analysis_edited_by_hand_is_refused_in_one_line(record, tmp_path):
    run = make_run(tmp_path / "run", analyses={"responses": record})
    with pytest.raises(RunError, match=r"analysis/responses\.json") as caught:
        run_page(run)
    assert "\n" not in str(caught.value)
    (run.path / "analysis" / "responses.json").write_text("{")
    with pytest.raises(RunError, match=r"analysis/responses\.json: truncated"):
        run_page(run)


def test_a_study_shows_the_responses_of_its_networks(tmp_path):
    for model in ("plain8", "resnet8", "resnet14"):
        for seed in range(2):
            deviations = [2.0 * seed + index for index in range(3)]
            layers = [{"layer": "l", "standard_deviation": value} for value in deviations]
            analyses = {} if model == "resnet14" else {"responses": {"layers": layers}}
            make_run(tmp_path / f"{model}-{seed}", model, seed, analyses)
    drawn = figures_of(study_page(collect(tmp_path)))["responses"]
    bold = [(series.name, list(series.y)) for series in drawn.series if series.style == "line"]
    assert bold == [("plain8, mean of 2 seeds", [1, 2, 3]), ("resnet8, mean of 2 seeds", [1, 2, 3])]
    seeds = [series for series in drawn.series if series.style == "thin"]
    assert [list(series.y) for series in seeds if series.group == "plain8"] == [
        [0, 1, 2],
        [2, 3, 4],
    ]
    assert "Bold: mean over 2 seeds. Pale: single seeds." in drawn.caption
    assert "Shading: 95 % confidence interval of the mean (2 seeds)" in drawn.caption
    assert "responses" not in figures_of(study_page(collect(tmp_path / "resnet14-0")))


def test_a_missing_number_is_a_gap_and_comes_last_when_sorted():
    in_order, by_size = response_figures({"net": [[1.0, None, 3.0]]})
    assert [math.isnan(y) for y in in_order.series[0].y] == [False, True, False]
    assert list(by_size.series[0].y)[:2] == [3, 1]


def heat(values, **options):
    x, y = range(len(values[0])), range(len(values))
    return HeatMap("h", "T", "C", "x", "y", "loss", x, y, values, **options)


def test_shades_go_from_the_lowest_to_the_highest_value():
    assert shades(heat([[1.0, 3.0], [2.0, 5.0]])) == [[0, 0.5], [0.25, 1]]
    assert shades(heat([[1.0, 10.0, 100.0]], log=True)) == [pytest.approx([0, 0.5, 1])]
    assert shades(heat([[2.0, 2.0]])) == [[0.5, 0.5]]
    (row,) = shades(heat([[1.0, None, math.inf, 2.0]]))
    assert [math.isnan(depth) for depth in row] == [False, True, True, False]


def test_a_heat_map_shows_its_values_and_leaves_a_gap_empty():
    drawn = heat([[1.0, None], [-2.5, 4.0]])
    svg = str(draw_heat(drawn))
    assert svg.count("<rect") == 3
    assert re.findall(r'class="cell"[^>]*>([^<]+)<', svg) == ["1", "−2.5", "4"]
    tops = [float(y) for y in re.findall(r'<rect x="[^"]+" y="([^%]+)%', svg)]
    assert tops == [50, 0, 0]  # the first row is at the bottom
    assert figure_csv(drawn).splitlines() == ["x,y,loss", "0,0,1", "1,0,", "0,1,-2.5", "1,1,4"]
    assert figure_png(drawn).startswith(b"\x89PNG")
    assert draw_heat(heat([[1.0] * 12])).count('class="cell"') == 0  # too many columns for values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeatMap("h", "", "", "", "", "", [0], [0, 1], [[1.0]]), "2 rows of 1 values"),
        (lambda: heat([[0.0]], log=True), "above 0"),
        (lambda: HeatMap("H!", "", "", "", "", "", [0], [0], [[1.0]]), "becomes a file name"),
    ],
)
def test_an_invalid_heat_map_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_heat_map_can_be_a_panel():
    panels = Panels([heat([[1.0]]), Figure("f", "", "", "", "", [])])
    html = render_html(Page("p", "", [Section("s", "", [panels])]))
    assert re.findall(r"<b>(Figure \d)", html) == ["Figure 1", "Figure 2"]


def test_the_records_of_this_file_are_valid_json():
    assert json.loads(json.dumps(RECORDS, allow_nan=False)) == RECORDS
