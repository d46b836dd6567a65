"""The evaluation of a run on its page: its content, hostile names, 1,000 classes, damaged files."""

import base64
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn.evaluate import Predictions, detailed_metrics, share
from reslearn.report import Confusion, Gallery, Page, Section, Table, render_html, run_page
from reslearn.report.confusion import MAX_CLASSES
from reslearn.runs import RunError, RunFolder, write_analysis

HOSTILE = "<script>alert(1)</script>"
MAX_BYTES = 5_000_000


def picture(size_px: int = 120) -> str:
    """Return a noisy JPEG, the largest that a thumbnail can be."""
    pixels = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=75)
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = picture()


def image_record(image: int) -> dict[str, Any]:
    return {
        "image": image,
        "file": f"{HOSTILE}/{image}.jpg",
        "label": 0,
        "prediction": 1,
        "label_pct": 3.25,
        "prediction_pct": 95.5,
        "picture": PICTURE,
        "heat_map": PICTURE,
    }


def evaluation(num_classes: int = 3, num_images: int = 300, **changes: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_images) % num_classes
    logits = torch.randn(num_images, num_classes, generator=generator)
    logits[torch.arange(num_images), labels] += 2
    names = [
        HOSTILE,
        *(f"a long name of class number {number}" for number in range(1, num_classes)),
    ]
    detailed = detailed_metrics(Predictions(logits=logits, labels=labels), names, temperature=1.5)
    shares = {"accuracy": asdict(share(8, 10)), "consistency": asdict(share(9, 10))}
    single = {"protocol": "single", "accuracy": asdict(share(8, 10))}
    return {
        "model": "resnet8",
        "images": "test",
        **detailed.to_json(),
        "temperature": 1.5,
        "num_mistakes": 200,
        "mistakes": [image_record(number) for number in range(24)],
        "num_suspected_labels": 30,
        "suspected_labels": [image_record(number) for number in range(30)],
        "robustness_images": num_images,
        "robustness": [{"change": "shift 1 px", **shares}],
        "views": [{**single, "num_corrected": 0, "num_spoiled": 0}],
        "why_no_views": None,
        "test_evaluations_in_training": 1,
        "test_evaluations_later": 2,
        **changes,
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    recipe = {"name": "digits", "seed": 0, "model": {"name": "resnet8"}, "data": {"name": "digits"}}
    run = RunFolder.create(tmp_path / "run", recipe, {})
    run.finish({"test_top1_error_pct": 20.0, "test_loss": 0.5, "steps": 3})
    return run


def page_of(run: RunFolder, record: dict[str, Any], name: str = "evaluation") -> Page:
    write_analysis(run, name, record)
    return run_page(run)


def section(page: Page, title: str) -> Section:
    return next(section for section in page.sections if section.title == title)


def test_all_parts_are_on_the_page(run: RunFolder) -> None:
    record = evaluation()
    page = page_of(run, record)
    html = render_html(page)
    assert "test accuracy 80.00 %, test error 20.00 %" in page.subtitle
    accuracy = record["accuracy"]
    text = section(page, "Accuracy by class").text
    assert f"accuracy is {accuracy['pct']:.2f} [{accuracy['low_pct']:.2f}, " in text
    assert f"error {100 - accuracy['pct']:.2f} [{100 - accuracy['high_pct']:.2f}, " in text
    assert "once by the training and 2 times by" in text and "--images validation" in text
    matrix = section(page, "Confusions").items[0]
    assert isinstance(matrix, Confusion)
    assert sum(map(sum, matrix.counts)) == 300
    assert "temperature 1.5" in section(page, "Calibration").text
    galleries = [section(page, title).items[0] for title in ("Most confident mistakes",)]
    assert isinstance(galleries[0], Gallery) and len(galleries[0].groups[0].pictures) == 24
    assert html.count('alt="heat map"') == 48
    assert "30 of 300 labels are suspected" in html and "up to 200" in html
    assert "top-5" not in html.split("<h2>Result")[1].split("Recipe")[0].replace("top-1", "")
    assert HOSTILE not in html


def test_a_run_without_evaluation_says_how_to_make_one(run: RunFolder) -> None:
    assert "`reslearn evaluate RUN`" in section(run_page(run), "Evaluation").text


def test_both_sets_of_images_are_shown_with_figures_of_their_own(run: RunFolder) -> None:
    write_analysis(run, "evaluation", evaluation())
    record = evaluation(images="validation")
    del record["test_evaluations_later"]
    page = page_of(run, record, "evaluation-validation")
    assert "evaluated once" not in section(page, "Accuracy by class (validation images)").text
    names = [figure.name for figure in page.figures()]
    assert {"reliability", "reliability-validation"} <= set(names)


@pytest.mark.parametrize(("num_images", "num_figures"), [(149, 0), (150, 1)])
def test_few_images_make_no_reliability_diagram(
    run: RunFolder, num_images: int, num_figures: int
) -> None:
    page = page_of(run, evaluation(num_images=num_images))
    assert [figure.name for figure in page.figures()].count("reliability") == num_figures


@pytest.mark.parametrize("num_classes", [MAX_CLASSES, MAX_CLASSES + 1])
def test_a_matrix_of_many_classes_becomes_a_list(run: RunFolder, num_classes: int) -> None:
    items = section(page_of(run, evaluation(num_classes)), "Confusions").items
    assert isinstance(items[0], Confusion) == (num_classes == MAX_CLASSES)
    assert isinstance(items[-1], Table)


def test_a_page_of_a_thousand_classes_is_small(run: RunFolder) -> None:
    for name in ("evaluation", "evaluation-validation"):
        page = page_of(run, evaluation(1000, 5000), name)
    table = section(page, "Accuracy by class").items[0]
    assert isinstance(table, Table)
    assert len(table.rows) == 50 and "950 of 1,000 classes" in table.caption
    assert "five best classes" in section(page, "Accuracy by class").text
    assert len(render_html(page).encode()) < MAX_BYTES


def test_missing_parts_are_said(run: RunFolder) -> None:
    record = evaluation(
        scaled_calibration=None,
        temperature=None,
        num_suspected_labels=None,
        suspected_labels=[],
        mistakes=[],
        num_mistakes=0,
        views=[],
        why_no_views="there is only one view",
    )
    html = render_html(page_of(run, record))
    for text in (
        "at least 50 validation images",
        "trained on these labels",
        "made no mistake",
        "Views that were not measured: there is only one view",
    ):
        assert text in html


@pytest.mark.parametrize(("num_suspects", "is_weak"), [(45, False), (46, True)])
def test_many_suspected_labels_accuse_the_network(
    run: RunFolder, num_suspects: int, is_weak: bool
) -> None:
    page = page_of(run, evaluation(num_suspected_labels=num_suspects))
    assert ("too weak" in section(page, "Suspected labels").text) == is_weak


def test_overconfidence_is_only_claimed_beyond_chance(run: RunFolder) -> None:
    record = evaluation()
    for ece, chance, verdict in ((8.0, 5.0, "overconfident"), (5.0, 5.0, "is calibrated as far")):
        record["calibration"] |= {"ece": asdict(share(8, 100)), "chance_ece_pct": chance}
        record["calibration"] |= {"mean_confidence_pct": 99.0}
        record["calibration"]["ece"]["pct"] = ece
        assert verdict in section(page_of(run, record), "Calibration").text.split("With the")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 3},
        {"confusion": [[0, 7, 1]]},
        {"mistakes": [{**image_record(0), "picture": "AAAA"}]},
        {"mistakes": [{**image_record(0), "picture": "no base64!"}]},
        {"calibration": None},
        {"accuracy": {"pct": "many"}},
    ],
)
def test_an_evaluation_of_another_shape_is_one_line(
    run: RunFolder, changes: dict[str, Any]
) -> None:
    write_analysis(run, "evaluation", evaluation(**changes))
    with pytest.raises(RunError, match=r"evaluation\.json") as error:
        run_page(run)
    assert "\n" not in str(error.value)


def test_a_matrix_needs_one_count_for_each_pair() -> None:
    with pytest.raises(ValueError, match="2 rows of 2 counts"):
        Confusion("", ("a", "b"), [[1, 2], [3]])
    with pytest.raises(ValueError, match="at most 25"):
        Confusion("", ["x"] * 26, [[0] * 26] * 26)
