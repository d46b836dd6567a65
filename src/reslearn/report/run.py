"""The page of one run: its results, its curves, its recipe and environment, and its commands.

Only the run folder is read (ARCHITECTURE.md, format 1). It may be incomplete, and it may hold any
lines, keys and analyses.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslearn import recipes
from reslearn.report.analysis import analysis_sections
from reslearn.report.content import (
    Code,
    Column,
    Facts,
    Figure,
    Item,
    Page,
    Panels,
    Section,
    Series,
    Style,
    Table,
)
from reslearn.report.curves import curve, learning_rate_curve
from reslearn.report.evaluation import evaluation_sections
from reslearn.runs import RunFolder

IMAGE_SETS = (
    ("training, clean", "train", "the network as saved"),
    ("training, clean", "train_recomputed", "batch-norm statistics recomputed on training images"),
    ("validation", "validation", "the network as saved"),
    ("test", "test", "the network as saved"),
)
"""Rows of the table of results: images, prefix of the fields in result.json, statistics."""


def run_page(folder: RunFolder | Path | str) -> Page:
    """Return the page of one run.

    Raises:
        RunError: If `folder` is not a run folder or cannot be read.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    recipe, environment, records = run.recipe, run.environment, run.metrics()
    result = run.result if run.is_complete else {}
    divergence = None if result else run.divergence
    if not result:
        run.identity()  # raises RunError if the recipe or the environment was changed
    model = recipe.get("model", {}).get("name", "network")
    data = environment.get("data", {}).get("name") or recipe.get("data", {}).get("name", "data")
    if result:
        result_section = Section("Result", "", [_results(result)])
    else:
        result_section = Section("Result", _why_no_result(records, divergence))
    sections = [
        result_section,
        *(evaluation_sections(run) if result else []),
        Section("Learning rate", "", _learning_rate_figure(records)),
        *analysis_sections(run),
        Section("Recipe", "", [_recipe(recipe)]),
        Section("How to repeat it", "", _repeat(environment, run.path)),
    ]
    sections = [section for section in sections if section.text or section.items]
    facts = _facts(result, environment, records)
    title, lead = f"{model} on {data}", _error_and_loss(records)
    return Page(title, _subtitle(recipe, result, divergence), sections, facts, lead)


def environment_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of environment.json that readers can use, as text."""
    facts = {name: str(version) for name, version in environment.get("versions", {}).items()}
    for key in ("commit", "started_at", "platform", "processor"):
        if environment.get(key):
            facts[key] = str(environment[key])
    for key, value in environment.get("numerics", {}).items():
        facts[key] = str(value)
    facts = {key.replace("_", " "): value for key, value in facts.items()}
    fingerprint = environment.get("data", {}).get("fingerprint")
    if fingerprint:
        facts["data fingerprint"] = str(fingerprint)
    return facts


def device_name(environment: Mapping[str, Any]) -> str:
    """Return the GPU, or the processor with its number of threads."""
    name = str(environment.get("device", ""))
    if name != "cpu":
        return name
    processor = str(environment.get("processor") or "CPU")
    threads = environment.get("numerics", {}).get("threads")
    if not threads:
        return processor
    return f"{processor}, {threads} {'thread' if threads == 1 else 'threads'}"


def format_duration(seconds: float) -> str:
    """Return a duration as text, such as 41 s, 3 min 20 s or 2 h 05 min."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.3g} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def _subtitle(recipe: Mapping[str, Any], result: Mapping[str, Any], divergence: str | None) -> str:
    origin = f"Recipe {recipe.get('name', '')}, seed {recipe.get('seed', '')}"
    if not result:
        state = "is not complete" if divergence is None else "diverged"
        return f"{origin}. This run {state}."
    errors = []
    if result.get("test_top1_error_pct") is not None:
        error_pct = result["test_top1_error_pct"]
        errors.append(f"test accuracy {100 - error_pct:.2f} %, test error {error_pct:.2f} %")
    if result.get("train_top1_error_pct") is not None:
        errors.append(f"training error {result['train_top1_error_pct']:.2f} % (clean images)")
    return f"{origin}: {', '.join(errors)}, at the last epoch." if errors else f"{origin}."


def _facts(
    result: Mapping[str, Any], environment: Mapping[str, Any], records: list[dict[str, Any]]
) -> dict[str, str]:
    last: Mapping[str, Any] = result or (records[-1] if records else {})
    numerics = environment.get("numerics", {})
    seconds = last.get("seconds")
    precision = str(numerics.get("precision", ""))
    if numerics.get("compiled"):
        precision = f"{precision} compiled".strip()
    facts = {
        "epochs": _format(last.get("epochs", last.get("epoch")), ".4g"),
        "steps": _format(last.get("steps", last.get("step")), ","),
        "time": "" if seconds is None else format_duration(seconds),
        "device": device_name(environment),
        "precision": precision,
        "parameters": _format(result.get("parameters"), ","),
        "multiply-adds per image": _format(result.get("macs"), ","),
    }
    return {label: text for label, text in facts.items() if text}


def _results(result: Mapping[str, Any]) -> Table:
    rows = []
    for images, key, statistics in IMAGE_SETS:
        error = result.get(f"{key}_top1_error_pct")
        if error is not None:
            loss = result.get(f"{key}_loss")
            rows.append((images, statistics, 100 - error, error, loss))
    caption = "Results at the last epoch."
    num_evaluations = result.get("test_touched")
    if num_evaluations is not None:
        times = "once" if num_evaluations == 1 else f"{num_evaluations} times"
        caption += f" The test images were evaluated {times}; no decision depended on them."
    columns = [
        Column("images"),
        Column("evaluated with"),
        Column("accuracy (%)", ".2f", True),
        Column("top-1 error (%)", ".2f", True),
        Column("loss", ".4f", True),
    ]
    return Table(caption, columns, rows)


def _why_no_result(records: list[dict[str, Any]], divergence: str | None) -> str:
    if divergence is not None:
        return f"The run diverged, so it has no result: {divergence}."
    if not records:
        return "The run is not complete and has not recorded any step."
    return f"The run is not complete: its last recorded step is {records[-1]['step']:,}."


def _error_and_loss(records: list[dict[str, Any]]) -> Panels | None:
    errors, losses = _error_curves(records, "top1_error_pct"), _error_curves(records, "loss")
    if not (errors and losses):
        return None
    error = Figure(
        name="error",
        title="Error",
        caption="Dashed: running, augmented batches of training. Bold: complete image sets.",
        x_label="iteration",
        y_label="top-1 error (%)",
        series=errors,
    )
    loss = Figure(
        name="loss",
        title="Loss",
        caption="Cross-entropy, on a logarithmic axis.",
        x_label="iteration",
        y_label="cross-entropy",
        series=losses,
        y_log=True,
    )
    return Panels([error, loss])


def _learning_rate_figure(records: list[dict[str, Any]]) -> list[Item]:
    points = learning_rate_curve(records)
    steps, rates = [step for step, _ in points], [rate for _, rate in points]
    if len(set(rates)) < 2:
        return []
    figure = Figure(
        name="learning-rate",
        title="Learning rate",
        caption="Learning rate at each recorded change and each recorded step.",
        x_label="iteration",
        y_label="learning rate",
        series=[Series("learning rate", steps, rates)],
    )
    return [figure]


def _error_curves(records: list[dict[str, Any]], key: str) -> list[Series]:
    curves = [
        _series("training", records, "train", key, "dashed"),
        _series("validation", records, "validation", key),
        _series("test", records, "test", key),
    ]
    return [series for series in curves if series is not None]


def _series(
    name: str, records: list[dict[str, Any]], kind: str, key: str, style: Style = "line"
) -> Series | None:
    points = curve(records, kind, key)
    if not points:
        return None
    return Series(name, [step for step, _ in points], [value for _, value in points], style)


def _recipe(recipe: Mapping[str, Any]) -> Table:
    overridden = {str(text).partition("=")[0].strip() for text in recipe.get("overrides", [])}
    rows = []
    for key, value in recipes.flatten(recipe).items():
        if key != "overrides":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((key, text, "yes" if key in overridden else ""))
    name = recipes.recipe_hash(recipe)
    caption = f"All values of the recipe, including defaults. Its hash is `{name}`."
    return Table(caption, ["key", "value", "set for this run"], rows)


def _repeat(environment: Mapping[str, Any], path: Path) -> list[Item]:
    command = environment.get("command")
    lines = [shlex.join(map(str, command))] if command else []
    lines.append(f"reslearn report {shlex.quote(str(path))}")
    return [
        Code("\n".join(lines), "Commands"),
        Facts(environment_facts(environment), "Environment"),
    ]


def _format(value: float | None, specification: str) -> str:
    return "" if value is None else format(value, specification)
