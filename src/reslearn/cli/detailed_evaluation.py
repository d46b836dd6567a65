"""The detailed evaluation of one network: compute it, save it in the run, print it as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslearn.terminal import printable_line, safe_console

if TYPE_CHECKING:
    from reslearn.evaluate import EvaluationTask, Metrics
    from reslearn.interop.as_bundle import InputOptions
    from reslearn.runs import RunFolder
    from reslearn.train import Machine

MAX_VALUES = 250_000_000
"""Images times classes. The logits of a larger set do not fit into the memory of a laptop."""
MAX_CLASSES_PRINTED = 40
MAX_MISTAKES_PRINTED = 10
Record = Mapping[str, Any]
_NUMBERS = ("images", "loss", "temperature", "corrected", "spoiled")


def evaluate_in_detail(
    source: str | Path,
    data: str | None,
    machine: Machine,
    *,
    images: str = "test",
    precision: str | None = None,
    with_views: bool | None = None,
    options: InputOptions | None = None,
) -> tuple[Metrics, dict[str, Any], Path | None]:
    """Evaluate one network, and save the evaluation if it is of a run on its own data.

    Returns:
        Loss and errors; the record of the evaluation without its pictures, empty for a set that is
        too large; and the file that it was saved to, if any.
    """
    from reslearn.analysis import evaluation_record, without_pictures
    from reslearn.interop.as_bundle import NO_OPTIONS
    from reslearn.train import evaluate_bundle, open_task, predict_task

    options = options or NO_OPTIONS
    task, run = open_task(
        source, data, machine, images=images, precision=precision, options=options
    )
    if len(task.images) * len(task.classes) > MAX_VALUES:
        metrics = evaluate_bundle(
            source, data, machine, images=images, precision=precision, options=options
        )
        return metrics, {}, None
    predictions, metrics = predict_task(task)
    task = task.readable()  # as many images as predictions
    record = evaluation_record(
        task, predictions, is_held_out=images != "train", with_views=with_views
    )
    if run is None or data is not None:
        return metrics, without_pictures(_described(task, record, data, images)), None
    name = "evaluation" if images == "test" else f"evaluation-{images}"
    record = _described(task, record, str(run.recipe["data"]["name"]), images)
    record |= _counts(run, images)
    return metrics, without_pictures(record), _save(run, name, record)


def print_evaluation(record: Record, path: Path | None) -> None:
    """Print the evaluation as tables."""
    console = safe_console(soft_wrap=True)
    for headings, rows in (
        _class_table(record),
        _confusion_table(record),
        _calibration_table(record),
        _robustness_table(record),
        _view_table(record),
        _mistake_table(record),
        _suspect_table(record),
    ):
        if rows:
            console.print()
            table = _table(headings, rows)
            if headings[-1] == "file":
                # A terminal wraps what is too long. Rich would cut the names of the files.
                unlimited = console.options.update(max_width=10_000)
                console.width = max(
                    console.width, console.measure(table, options=unlimited).maximum
                )
            console.print(table)
    console.print()
    for line in _notes(record):
        console.print(printable_line(line))
    if path is not None:
        console.print(printable_line(str(path)))
        console.print(printable_line(f"write its page: reslearn report {path.parent.parent}"))


def _described(
    task: EvaluationTask, record: Record, data: str | None, images: str
) -> dict[str, Any]:
    """Add what was evaluated, in front."""
    model = getattr(task.network, "name", "network")
    return {"model": model, "data": data, "images": images, **record}


def _counts(run: RunFolder, images: str) -> dict[str, Any]:
    """Count the evaluations of the test images, this one included."""
    from reslearn.runs import read_analysis

    if images != "test":
        return {}
    before = read_analysis(run, "evaluation") or {}
    return {
        "test_evaluations_in_training": int(run.result.get("test_touched") or 0),
        "test_evaluations_later": int(before.get("test_evaluations_later", 0)) + 1,
    }


def _save(run: RunFolder, name: str, record: Record) -> Path | None:
    """Write the analysis, or return None where the folder of the run cannot be written."""
    import errno
    import warnings

    from reslearn.runs import write_analysis

    try:
        return write_analysis(run, name, record)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        warnings.warn(f"the evaluation was not saved: {error}", stacklevel=2)
        return None


Rows = list[list[str]]


def _class_table(record: Record) -> tuple[list[str], Rows]:
    classes = sorted(record["classes"], key=lambda entry: float(entry["f1"]["pct"] or 0))
    rows = []
    for entry in classes[:MAX_CLASSES_PRINTED]:
        precision = share_text(entry["precision"]) if entry["num_predicted"] else "never predicted"
        shares = [precision, share_text(entry["recall"]), share_text(entry["f1"])]
        rows.append([printable_line(entry["name"]), f"{entry['num_images']:,}", *shares])
    num_hidden = len(classes) - len(rows)
    if num_hidden:
        rows.append([f"... {num_hidden} classes with a higher F1", "", "", "", ""])
    return ["class", "images", "precision %", "recall %", "F1 %"], rows


def _confusion_table(record: Record) -> tuple[list[str], Rows]:
    names = [printable_line(entry["name"]) for entry in record["classes"]]
    confusions = [entry for entry in record["confusion"] if entry[0] != entry[1]]
    confusions.sort(key=lambda entry: -int(entry[2]))
    rows = [[names[a], names[b], str(count)] for a, b, count in confusions[:MAX_MISTAKES_PRINTED]]
    return ["confusions: label", "prediction", "images"], rows


def _calibration_table(record: Record) -> tuple[list[str], Rows]:
    rows = []
    for title, key in (
        ("as trained", "calibration"),
        ("with the temperature", "scaled_calibration"),
    ):
        value = record[key]
        if value is not None:
            temperature, ece = f"{value['temperature']:.4g}", share_text(value["ece"])
            chance = f"{value['chance_ece_pct']:.1f}"
            confidence, loss = f"{value['mean_confidence_pct']:.1f}", f"{value['loss']:.4f}"
            rows.append([title, temperature, ece, chance, confidence, loss])
    headings = ["calibration", "temperature", "ECE %", "by chance %", "confidence %"]
    return [*headings, "loss"], rows


def _robustness_table(record: Record) -> tuple[list[str], Rows]:
    rows = [
        [entry["change"], share_text(entry["accuracy"]), share_text(entry["consistency"])]
        for entry in record["robustness"]
    ]
    return [f"change of {record['robustness_images']:,} images", "accuracy %", "unchanged %"], rows


def _view_table(record: Record) -> tuple[list[str], Rows]:
    rows = []
    for entry in record["views"]:
        numbers = [str(entry["num_corrected"]), str(entry["num_spoiled"])]
        rows.append([entry["protocol"], share_text(entry["accuracy"]), *numbers])
    return ["views", "accuracy %", "corrected", "spoiled"], rows


def _mistake_table(record: Record) -> tuple[list[str], Rows]:
    headings = ["label of mistake", "prediction", "confidence %", "file"]
    return headings, _image_rows(record, "mistakes")


def _suspect_table(record: Record) -> tuple[list[str], Rows]:
    headings = ["suspected label", "suggestion", "probability %", "file"]
    return headings, _image_rows(record, "suspected_labels")


def _image_rows(record: Record, key: str) -> Rows:
    names = [printable_line(entry["name"]) for entry in record["classes"]]
    rows = []
    for entry in record[key][:MAX_MISTAKES_PRINTED]:
        file = printable_line(entry["file"] or f"image {entry['image']}")
        probability = f"{entry['prediction_pct']:.1f}"
        rows.append([names[entry["label"]], names[entry["prediction"]], probability, file])
    return rows


def _notes(record: Record) -> list[str]:
    """Return notes on how to read the numbers."""
    balanced, f1 = share_text(record["balanced_accuracy"]), share_text(record["macro_f1"])
    notes = [
        f"mean over classes: recall {balanced} %, F1 {f1} %",
        "classes are sorted by F1, the lowest first",
        "95 % intervals are exact binomial; class means and the ECE have bootstrap intervals",
    ]
    if record["temperature"] is None:
        notes.append(
            "no temperature was fitted: it needs at least 50 validation images whose loss it "
            "lowers by more than chance"
        )
    elif record["images"] == "validation":
        notes.append(
            "the temperature was fitted on these validation images, so its ECE and loss are too "
            "low: evaluate test images"
        )
    if len(record["views"]) > 1:
        notes.append(
            "corrected images are right with these views and wrong with a single crop; "
            "spoiled images are the opposite"
        )
    if record["why_no_views"]:
        notes.append(f"views that were not measured: {record['why_no_views']}")
    if "test_evaluations_later" in record:
        notes.append(test_use_text(record))
    return notes


def test_use_text(record: Record) -> str:
    """Return how often the test images were evaluated, and what to use for choices."""
    in_training, later = record["test_evaluations_in_training"], record["test_evaluations_later"]
    return (
        f"the test images were evaluated {times(in_training)} by the training and {times(later)} "
        "by this command; choose between models with --images validation"
    )


def times(count: int) -> str:
    """Return "once" or "3 times"."""
    return "once" if count == 1 else f"{count} times"


def share_text(share: Record) -> str:
    """Return a share with its interval, such as "91.7 [87.1, 94.9]"."""
    from reslearn.study import Interval, number_text

    low, high = share["low_pct"], share["high_pct"]
    interval = None if low is None or high is None else Interval(low, high)
    return number_text(share["pct"], digits=1, interval=interval)


def _table(headings: Sequence[str], rows: Rows) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        is_text = not heading.endswith("%") and heading not in _NUMBERS
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
