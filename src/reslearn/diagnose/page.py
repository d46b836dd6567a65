"""The page and the JSON of a diagnosis: verdict, evidence by condition, curves that prove it, learning rates, rules, how to repeat it."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from reslearn.diagnose.experiment import CHOICE_SEED, Diagnosis
from reslearn.diagnose.trial import Trial
from reslearn.diagnose.verdict import MARGIN, RULES
from reslearn.report import Cell, Code, Column, Facts, Figure, Page, Section, Series, Table
from reslearn.report.curves import seeds_series
from reslearn.report.run import duration
from reslearn.study import summary


def diagnosis_page(found: Diagnosis, *, command: Sequence[str]) -> Page:
    """One page."""
    problem, verdict = found.problem, found.verdict
    rules = Table("Applied in this order.", ["verdict", "when"], list(RULES))
    sections = [
        Section("Verdict", f"{verdict.name}: {verdict.because}.", [evidence_table(found)] if found.trials else []),
        Section("The curves", "", _curves(found)),
        Section("Learning rates", _RATES, _rates(found)),
        Section("The network", "\n\n".join(found.conditions.notes), [Facts(_network(found))]),
        Section("Rules", f"Margin: {MARGIN:g} of the loss of guessing.", [rules]),
        Section("How to repeat it", "", [Code(shlex.join(command), "Command")]),
    ]
    facts = {
        "task": problem.task, "examples": f"{len(problem.inputs):,} and {len(problem.held_inputs):,} held out",
        "trials": str(len(found.trials)), "steps a trial": str(found.steps), "time": duration(found.seconds),
    }  # fmt: skip
    return Page(
        f"Diagnosis of {problem.name}", "Each condition is a network that would be better if the suspected cause were true.",
        [section for section in sections if section.items or section.text], facts,
    )  # fmt: skip


def evidence_table(found: Diagnosis) -> Table:
    """A row a condition: training and held-out score over seeds."""
    rows: list[list[Cell]] = []
    for name, scores in found.evidence.train.items():
        own = found.conditions.made.get(name)
        what = own.what if own is not None else "the network at the learning rate given"
        train, held = summary(list(scores)), summary(list(found.evidence.held[name]))
        around = "" if train.interval is None else f"{train.interval.low:.3f} to {train.interval.high:.3f}"
        rows.append([name, what, train.mean, train.standard_deviation, around, held.mean, train.n])
    columns: list[Column | str] = [
        "condition", "what it is", Column("training", ".3f", True), Column("sd", ".3f", True), Column("95 % interval", numeric=True),
        Column("held out", ".3f", True), Column("seeds", "d", True),
    ]  # fmt: skip
    return Table("Losses on clean data as shares of the loss of guessing: 1 is guessing, 0 is perfect, at most 2.", columns, rows)


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "network": found.problem.name,
        "verdict": found.verdict.name,
        "because": found.verdict.because,
        "certain": found.verdict.certain,
        "margin": MARGIN,
        "conditions": {name: one.what for name, one in found.conditions.made.items()},
        "notes": list(found.conditions.notes),
        "layers": found.conditions.num_layers,
        "layers_shallow": found.conditions.num_layers_shallow,
        "left_out": list(found.conditions.left_out),
        "shortcuts_around": list(found.conditions.shortcuts_around),
        "learning_rates": {name: lr for name, (lr, _) in found.rates.items()},
        "train_scores": {name: list(scores) for name, scores in found.evidence.train.items()},
        "held_scores": {name: list(scores) for name, scores in found.evidence.held.items()},
        "neighbours_held_score": found.evidence.neighbours,
        "gradient_ratio_at_start": _number(found.start.gradient_ratio),
        "dead_share_at_start": _number(found.start.dead_share),
        "steps": found.steps,
        "trials": len(found.trials),
        "seconds": round(found.seconds, 1),
        "rules": [{"verdict": name, "when": when} for name, when in RULES],
    }


_RATES = "Each condition at its best of a few, chosen by training loss on a seed of its own: depth is not to be taken for step size."


def _curves(found: Diagnosis) -> list[Figure]:
    judged = [trial for trial in found.trials if trial.seed != CHOICE_SEED]
    series: list[Series] = []
    for name in found.evidence.train:
        curves = {trial.seed: list(trial.curve) for trial in judged if trial.condition == name}
        series += seeds_series(name, curves, group=name)
    if not series:
        return []
    caption = "As trained, on running batches. Bold: mean over seeds; thin: single seeds. 1 is the loss of guessing."
    return [Figure("curves", "Training loss by condition", caption, "step", "loss / loss of guessing", series, y_limits=(0.0, 1.5))]


def _rates(found: Diagnosis) -> list[Table]:
    if not found.rates:
        return []
    tried = sorted({lr for _, scores in found.rates.values() for lr in scores})
    rows = [[name, *(scores.get(lr) for lr in tried), f"{lr:.3g}"] for name, (lr, scores) in found.rates.items()]
    columns: list[Column | str] = ["condition", *(Column(f"at {lr:.3g}", ".3f", True) for lr in tried), "taken"]
    return [Table(f"Training score; the learning rate given is {found.problem.lr:.3g} ({found.problem.optimizer_name}).", columns, rows)]


def _network(found: Diagnosis) -> dict[str, str]:
    made = found.conditions
    facts = {
        "layers": str(made.num_layers or "not known: it cannot be laid open"),
        "left out for the shallower one": ", ".join(made.left_out),
        "shortcuts around": ", ".join(made.shortcuts_around),
        "gradient, first third of layers over last, at start": _text(found.start.gradient_ratio),
        "the same at the end": _text(_median([trial.end.gradient_ratio for trial in _deep(found)])),
        "units that are dead at start": _text(found.start.dead_share, percent=True),
        "at the end": _text(_median([trial.end.dead_share for trial in _deep(found)]), percent=True),
        "nearest neighbours, held out": f"{found.evidence.neighbours:.3f}" if found.trials else "",
    }
    return {label: text for label, text in facts.items() if text}


def _deep(found: Diagnosis) -> list[Trial]:
    return [trial for trial in found.trials if trial.condition == "deep" and trial.seed != CHOICE_SEED]


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _text(value: float | None, *, percent: bool = False) -> str:
    return "" if value is None else f"{value:.0%}" if percent else f"{value:.3g}"
