"""One run as a page: its results, its curves, the recipe and the environment, and the commands that repeat it.

Reads only the run folder (ARCHITECTURE.md, format 1), complete or not, with whatever lines, keys and analyses it has.
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
    Table,
)
from reslearn.report.curves import curve
from reslearn.runs import RunFolder

SETS = (
    ("training, clean", "train", "the network as saved"),
    ("training, clean", "train_recomputed", "batch-norm statistics recomputed on training images"),
    ("validation", "validation", "the network as saved"),
    ("test", "test", "the network as saved"),
)


def run_page(folder: RunFolder | Path | str) -> Page:
    """The page of one run. Raises RunError where `folder` is no run or holds what cannot be read."""
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    recipe, environment, records = run.recipe, run.environment, run.metrics()
    result = run.result if run.is_complete else {}
    model = str(recipe.get("model", {}).get("name", "network"))
    data = str(
        environment.get("data", {}).get("name") or recipe.get("data", {}).get("name", "data")
    )
    sections = [
        Section(
            "Result", "" if result else _how_far(records), [_results(result)] if result else []
        ),
        Section("Training", "", _figures(records)),
        *analysis_sections(run),
        Section("Recipe", "", [_recipe(recipe)]),
        Section("How to repeat it", "", _repeat(environment, run.path)),
    ]
    sections = [section for section in sections if section.text or section.items]
    return Page(
        f"{model} on {data}",
        _subtitle(recipe, result),
        sections,
        _facts(result, environment, records),
    )


def _subtitle(recipe: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    by = f"Recipe {recipe.get('name', '')}, seed {recipe.get('seed', '')}"
    if not result:
        return f"{by}. This run is not complete."
    test, train = result.get("test_top1_error_pct"), result.get("train_top1_error_pct")
    said = [f"test error {test:.2f} %"] if test is not None else []
    said += [f"training error {train:.2f} % (clean images)"] if train is not None else []
    return f"{by}: {', '.join(said)}, at the last epoch." if said else f"{by}."


def _facts(
    result: Mapping[str, Any], environment: Mapping[str, Any], records: list[dict[str, Any]]
) -> dict[str, str]:
    last: Mapping[str, Any] = result or (records[-1] if records else {})
    numerics = environment.get("numerics", {})
    facts = {
        "epochs": _text(last.get("epochs", last.get("epoch")), ".4g"),
        "steps": _text(last.get("steps", last.get("step")), ","),
        "time": format_duration(last["seconds"]) if last.get("seconds") is not None else "",
        "device": device_name(environment),
        "precision": " ".join(
            filter(
                None,
                [
                    str(numerics.get("precision", "")),
                    "compiled" if numerics.get("compiled") else "",
                ],
            )
        ),
        "parameters": _text(result.get("parameters"), ","),
        "multiply-adds an image": _text(result.get("macs"), ","),
    }
    return {label: text for label, text in facts.items() if text}


def _results(result: Mapping[str, Any]) -> Table:
    rows = [
        (name, how, result.get(f"{key}_top1_error_pct"), result.get(f"{key}_loss"))
        for name, key, how in SETS
        if result.get(f"{key}_top1_error_pct") is not None
    ]
    touched = result.get("test_touched")
    times = "once" if touched == 1 else f"{touched} times"
    test = (
        f" The test images were looked at {times}; no decision read them."
        if touched is not None
        else ""
    )
    columns = [
        Column("images"),
        Column("evaluated with"),
        Column("top-1 error (%)", ".2f", True),
        Column("loss", ".4f", True),
    ]
    return Table(f"Results at the last epoch.{test}", columns, rows)


def _how_far(records: list[dict[str, Any]]) -> str:
    said = f"its last line is of step {records[-1]['step']:,}" if records else "it has no line yet"
    return f"The run is not complete: {said}."


def _figures(records: list[dict[str, Any]]) -> list[Item]:
    errors = _curves(records, "top1_error_pct")
    losses = _curves(records, "loss")
    rate = curve(records, "train", "lr")
    made: list[Item] = []
    if errors and losses:
        caption = "Dashed: running batches, augmented, as trained. Bold: evaluated on whole sets."
        made.append(
            Panels(
                [
                    Figure("error", "Error", caption, "iteration", "top-1 error (%)", errors),
                    Figure(
                        "loss",
                        "Loss",
                        "Cross-entropy, on a logarithmic axis.",
                        "iteration",
                        "cross-entropy",
                        losses,
                        y_log=True,
                    ),
                ]
            )
        )
    if rate and len({value for _, value in rate}) > 1:
        series = [Series("learning rate", [step for step, _ in rate], [value for _, value in rate])]
        made.append(
            Figure(
                "learning-rate",
                "Learning rate",
                "As the steps took it.",
                "iteration",
                "learning rate",
                series,
            )
        )
    return made


def _curves(records: list[dict[str, Any]], key: str) -> list[Series]:
    made = []
    for kind, name in (("train", "training"), ("validation", "validation"), ("test", "test")):
        points = curve(records, kind, key)
        if points:
            made.append(
                Series(
                    name,
                    [s for s, _ in points],
                    [v for _, v in points],
                    "dashed" if kind == "train" else "line",
                )
            )
    return made


def _recipe(recipe: Mapping[str, Any]) -> Table:
    overridden = {str(text).partition("=")[0].strip() for text in recipe.get("overrides", [])}
    rows = [
        (
            key,
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            "yes" if key in overridden else "",
        )
        for key, value in recipes.flatten(recipe).items()
        if key != "overrides"
    ]
    name = recipes.recipe_hash(recipe)
    return Table(
        f"All values of the recipe, defaults filled in. Its hash is `{name}`.",
        ["key", "value", "set for this run"],
        rows,
    )


def _repeat(environment: Mapping[str, Any], path: Path) -> list[Item]:
    command = environment.get("command")
    lines = [shlex.join(map(str, command))] if command else []
    lines.append(f"reslearn report {shlex.quote(str(path))}")
    return [
        Code("\n".join(lines), "Commands"),
        Facts(environment_facts(environment), "Circumstances"),
    ]


def environment_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The lines of environment.json that a reader can use, as text."""
    facts = {name: str(version) for name, version in environment.get("versions", {}).items()}
    facts |= {
        key: str(environment[key])
        for key in ("commit", "started_at", "platform", "processor")
        if environment.get(key)
    }
    facts |= {
        key.replace("_", " "): str(value) for key, value in environment.get("numerics", {}).items()
    }
    fingerprint = environment.get("data", {}).get("fingerprint")
    facts = {key.replace("_", " "): value for key, value in facts.items()}
    return facts | ({"data fingerprint": str(fingerprint)} if fingerprint else {})


def device_name(environment: Mapping[str, Any]) -> str:
    """What it ran on, in a few words."""
    name, threads = (
        str(environment.get("device", "")),
        environment.get("numerics", {}).get("threads"),
    )
    if name != "cpu":
        return name
    processor = str(environment.get("processor") or "CPU")
    return (
        f"{processor}, {threads} {'thread' if threads == 1 else 'threads'}"
        if threads
        else processor
    )


def format_duration(seconds: float) -> str:
    """Seconds as a reader says them: 41 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _text(value: float | None, specification: str) -> str:
    return "" if value is None else format(value, specification)
