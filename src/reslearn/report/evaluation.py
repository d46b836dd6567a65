"""The evaluation of a run (analysis/evaluation.json, by `reslearn evaluate`) as sections of a page.

The page stays readable and small for any number of classes. Long tables show their worst rows. A
matrix of more than 25 classes becomes a list of its greatest cells.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from reslearn.report.confusion import MAX_CLASSES, Confusion, shortened
from reslearn.report.content import Column, Figure, Item, Section, Series, Table
from reslearn.report.gallery import Gallery, Picture, PictureGroup
from reslearn.runs import RunError, RunFolder, read_analysis
from reslearn.study import Interval, number_text

Record = Mapping[str, Any]

IMAGE_SETS = ("test", "validation", "train")
MAX_ROWS = 50
MAX_PICTURES = 24
MAX_SUSPECTED_SHARE = 0.15
"""Above this share of suspected labels, the network is the more likely cause."""
_MAX_NAME_CHARACTERS = 40
_MIN_BINS = 3
"""A reliability diagram of fewer bins shows less than the sentence above it."""


def evaluation_sections(run: RunFolder) -> list[Section]:
    """Return the sections of all evaluations of a complete run.

    Raises:
        RunError: If an evaluation cannot be read, or is not the output of `reslearn evaluate`.
    """
    sections: list[Section] = []
    for images in IMAGE_SETS:
        name = "evaluation" if images == "test" else f"evaluation-{images}"
        record = read_analysis(run, name)
        if record is None:
            continue
        try:
            sections += _sections(record, images)
        except RunError:
            raise
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            path = run.path / "analysis" / f"{name}.json"
            raise RunError(
                f"{path} is not the output of `reslearn evaluate` ({error}); run the command again"
            ) from None
    if not sections:
        text = (
            "This run was not evaluated in detail. `reslearn evaluate RUN` adds accuracy by class, "
            "confusions, calibration, the most confident mistakes, suspected labels and robustness."
        )
        return [Section("Evaluation", text)]
    return sections


def _sections(record: Record, images: str) -> list[Section]:
    names = [shortened(str(entry["name"]), _MAX_NAME_CHARACTERS) for entry in record["classes"]]
    suffix = "" if images == "test" else f" ({images} images)"
    sections = [
        Section(f"Accuracy by class{suffix}", _accuracy_text(record, images), [_classes(record)]),
        Section(f"Confusions{suffix}", "", _confusions(record, names)),
        Section(f"Calibration{suffix}", _calibration_text(record), _calibration(record, images)),
        Section(f"Most confident mistakes{suffix}", *_mistakes(record, names)),
        Section(f"Suspected labels{suffix}", *_suspects(record, names)),
        Section(f"Robustness and views{suffix}", _robustness_text(record), _robustness(record)),
    ]
    return [section for section in sections if section.text or section.items]


def _accuracy_text(record: Record, images: str) -> str:
    accuracy = record["accuracy"]
    text = (
        f"On {record['num_images']:,} {images} images the accuracy is {_share(accuracy, 2)} %, the "
        f"error {_share(_complement(accuracy), 2)} %."
    )
    if record["top5_accuracy"] is not None:
        text += f" The label is among the five best classes in {_share(record['top5_accuracy'])} %."
    text += (
        f" The mean over classes of the recall is {_share(record['balanced_accuracy'])} %, of F1 "
        f"{_share(record['macro_f1'])} %. A rare class counts as much as a frequent one there."
    )
    text += (
        "\n\nIntervals of 95 % are over images, not over seeds. They are exact binomial ones "
        "(Clopper, Pearson 1934): recall over the images of the class, precision over the images "
        "predicted as the class, F1 over both. Means over classes have bootstrap intervals."
    )
    if "test_evaluations_later" in record:
        text += f"\n\n{_test_use(record)}"
    return text


def _test_use(record: Record) -> str:
    in_training, later = record["test_evaluations_in_training"], record["test_evaluations_later"]
    text = (
        f"The test images were evaluated {_times(in_training)} by the training and "
        f"{_times(later)} by `reslearn evaluate`. A test error that was used to choose between "
        "models is too low: choose by `reslearn evaluate RUN --images validation`."
    )
    return text


def _classes(record: Record) -> Table:
    classes = sorted(record["classes"], key=lambda entry: float(entry["f1"]["pct"] or 0))
    rows = []
    for entry in classes[:MAX_ROWS]:
        name = shortened(str(entry["name"]), _MAX_NAME_CHARACTERS)
        precision = _share(entry["precision"]) if entry["num_predicted"] else "never predicted"
        recall = _share(entry["recall"]) if entry["num_images"] else "no images"
        rows.append((name, entry["num_images"], precision, recall, _share(entry["f1"])))
    caption = "Classes, the lowest F1 first, with intervals of 95 %."
    if len(classes) > MAX_ROWS:
        caption += (
            f" {len(classes) - MAX_ROWS:,} of {len(classes):,} classes have a higher F1 and are "
            "only in `analysis/evaluation.json`."
        )
    numbers = [Column(name, numeric=True) for name in ("precision (%)", "recall (%)", "F1 (%)")]
    return Table(caption, [Column("class"), Column("images", numeric=True), *numbers], rows)


def _confusions(record: Record, names: Sequence[str]) -> list[Item]:
    items: list[Item] = []
    if len(names) <= MAX_CLASSES:
        counts = [[0] * len(names) for _ in names]
        for label, prediction, count in record["confusion"]:
            counts[label][prediction] = count
        caption = "Number of images by label (row) and prediction (column). Shades: share of a row."
        items.append(Confusion(caption, names, counts))
    totals = [entry["num_images"] for entry in record["classes"]]
    wrong = [entry for entry in record["confusion"] if entry[0] != entry[1]]
    wrong.sort(key=lambda entry: -int(entry[2]))
    rows = []
    for label, prediction, count in wrong[: MAX_ROWS if len(names) > MAX_CLASSES else 10]:
        rows.append((names[label], names[prediction], count, 100 * count / totals[label]))
    if rows:
        columns = [Column("label"), Column("prediction"), Column("images", numeric=True)]
        caption = "The most frequent confusions."
        items.append(Table(caption, [*columns, Column("of the label (%)", ".1f", True)], rows))
    return items


def _calibration_text(record: Record) -> str:
    trained, scaled = record["calibration"], record["scaled_calibration"]
    text = f"As trained, the network {_judged(trained, record['accuracy']['pct'])}."
    if scaled is None:
        return (
            f"{text} No temperature was fitted: it needs at least 50 validation images whose loss "
            "it lowers by more than chance."
        )
    text = (
        f"{text} With the temperature {scaled['temperature']:.4g}, fitted on validation images and "
        f"stored in the bundle, it {_judged(scaled, record['accuracy']['pct'])}. The temperature "
        "changes no prediction. The probabilities of this page have it."
    )
    if record["images"] == "validation":
        text += " It was fitted on these images, so judge it by the test images."
    return text


def _judged(calibration: Record, accuracy_pct: float) -> str:
    ece, chance = calibration["ece"], calibration["chance_ece_pct"]
    confidence = calibration["mean_confidence_pct"]
    if ece["pct"] <= chance:
        return (
            f"is calibrated as far as these images can tell (ECE {_share(ece)} %, below the "
            f"{chance:.1f} % that chance explains)"
        )
    word = "overconfident" if confidence > accuracy_pct else "underconfident"
    return (
        f"is {word}: its mean confidence is {confidence:.1f} % at an accuracy of "
        f"{accuracy_pct:.1f} % (ECE {_share(ece)} %, above the {chance:.1f} % that chance explains)"
    )


def _calibration(record: Record, images: str) -> list[Item]:
    if len(record["calibration"]["bins"]) < _MIN_BINS:
        return []
    series = [_reliability("as trained", record["calibration"])]
    if record["scaled_calibration"] is not None:
        series.append(_reliability("with the temperature", record["scaled_calibration"]))
    confidences = list(chain.from_iterable(curve.x for curve in series))
    ends = [min(confidences), max(confidences)]
    series.append(Series("perfect calibration", ends, ends, "dashed"))
    figure = Figure(
        name="reliability" if images == "test" else f"reliability-{images}",
        title="Reliability diagram",
        caption=(
            "Images sorted by confidence, in bins of equal size. Shading: interval of 95 %. Below "
            "the dashed line the network is overconfident."
        ),
        x_label="mean confidence (%)",
        y_label="accuracy (%)",
        series=series,
    )
    return [figure]


def _reliability(name: str, calibration: Record) -> Series:
    bins = calibration["bins"]
    accuracies = [entry["accuracy"] for entry in bins]
    return Series(
        name,
        [entry["mean_confidence_pct"] for entry in bins],
        [accuracy["pct"] for accuracy in accuracies],
        low=[accuracy["low_pct"] for accuracy in accuracies],
        high=[accuracy["high_pct"] for accuracy in accuracies],
    )


def _mistakes(record: Record, names: Sequence[str]) -> tuple[str, list[Item]]:
    num_mistakes, mistakes = record["num_mistakes"], record["mistakes"][:MAX_PICTURES]
    if not mistakes:
        return "The network made no mistake on these images.", []
    text = (
        f"The {len(mistakes)} most confident of {num_mistakes:,} mistakes, as the network sees "
        "them. Below each picture, orange marks what speaks for the predicted class (Grad-CAM)."
    )
    return text, [_gallery(mistakes, names, "predicted {1}: {2} %; label {0}: {3} %")]


def _suspects(record: Record, names: Sequence[str]) -> tuple[str, list[Item]]:
    num_suspects, suspects = record["num_suspected_labels"], record["suspected_labels"]
    if num_suspects is None:
        return "The network was trained on these labels, so none can be suspected.", []
    rule = (
        "The rule is that of confident learning (Northcutt, Jiang, Chuang 2021): the network gives "
        "another class at least the mean probability that the images of that class get."
    )
    if not suspects:
        return f"No label is suspected. {rule}", []
    num_images = record["num_images"]
    text = (
        f"{num_suspects:,} of {num_images:,} labels are suspected. {rule} The most suspicious "
        "labels are shown; look at them before you correct any."
    )
    if num_suspects > MAX_SUSPECTED_SHARE * num_images:
        text += " So many labels are rarely wrong: this network is too weak for the rule."
    if num_suspects > MAX_PICTURES:
        text += " The file `analysis/evaluation.json` lists up to 200."
    suspects = suspects[:MAX_PICTURES]
    return text, [_gallery(suspects, names, "label {0}: {3} %; suggested {1}: {2} %")]


def _gallery(entries: Sequence[Record], names: Sequence[str], caption: str) -> Gallery:
    pictures = []
    for entry in entries:
        text = caption.format(
            names[entry["label"]],
            names[entry["prediction"]],
            f"{entry['prediction_pct']:.1f}",
            f"{entry['label_pct']:.1f}",
        )
        source = _shortened_path(entry["file"] or f"image {entry['image']}")
        heat_map = entry["heat_map"]
        pictures.append(
            Picture(
                _decoded(entry["picture"]),
                f"{text}. {source}",
                None if heat_map is None else _decoded(heat_map),
            )
        )
    return Gallery("", [PictureGroup("", pictures)])


def _shortened_path(path: str) -> str:
    """Return the start and the end of a long path, which are enough to find the file."""
    return path if len(path) <= 34 else f"{path[:16]}…{path[-16:]}"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a picture is no base64: {error}") from None


def _robustness_text(record: Record) -> str:
    text = (
        f"Small changes of {record['robustness_images']:,} images, in pixels of the input. "
        "Unchanged: share of the images that keep their prediction, right or wrong."
    )
    if record["why_no_views"]:
        text += f" Views that were not measured: {record['why_no_views']}."
    return text


def _robustness(record: Record) -> list[Item]:
    rows = [
        (entry["change"], _share(entry["accuracy"]), _share(entry["consistency"]))
        for entry in record["robustness"]
    ]
    columns = [Column("accuracy (%)", numeric=True), Column("unchanged (%)", numeric=True)]
    items: list[Item] = [Table("Robustness.", [Column("change"), *columns], rows)]
    views = [
        (view["protocol"], _share(view["accuracy"]), view["num_corrected"], view["num_spoiled"])
        for view in record["views"]
    ]
    if views:
        caption = (
            "Views of an image whose scores are averaged (Sec. 4.1). Corrected: images that are "
            "right now, but were wrong with a single crop. Spoiled: the opposite."
        )
        counts = [Column("corrected", numeric=True), Column("spoiled", numeric=True)]
        heads = [Column("views"), Column("accuracy (%)", numeric=True), *counts]
        items.append(Table(caption, heads, views))
    return items


def _share(share: Record, digits: int = 1) -> str:
    low, high = share["low_pct"], share["high_pct"]
    interval = None if low is None or high is None else Interval(low, high)
    return number_text(share["pct"], digits=digits, interval=interval)


def _complement(share: Record) -> dict[str, float | None]:
    """Return the share of the other images."""
    ends = [share["pct"], share["high_pct"], share["low_pct"]]
    complements = [None if end is None else 100 - end for end in ends]
    return dict(zip(("pct", "low_pct", "high_pct"), complements, strict=True))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
