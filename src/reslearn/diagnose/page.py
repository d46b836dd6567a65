"""The page and the JSON of a diagnosis: verdict, evidence by condition, curves, the network drawn, the patch, how to repeat it."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from reslearn.diagnose.drawing import network_diagram
from reslearn.diagnose.experiment import CHOICE_SEED, Diagnosis
from reslearn.diagnose.patch import Patch
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.signals import LayerSignal
from reslearn.diagnose.trial import Trial
from reslearn.diagnose.verdict import MARGIN, RULES
from reslearn.report import Cell, Code, Column, Facts, Figure, Page, Panels, Section, Series, Table
from reslearn.report.curves import interval_note, seeds_series
from reslearn.report.run import format_duration
from reslearn.study import summary


def diagnosis_page(found: Diagnosis, *, command: Sequence[str], patch: Patch | None = None) -> Page:
    """One page; with the patch, where there is one, and what it was proven by."""
    problem, verdict = found.problem, found.verdict
    rules = Table("Applied in this order.", ["verdict", "when"], list(RULES))
    recommended = (
        _sentence(patch_line(found, patch))
        if patch is not None and found.proof is not None and found.proof.helps
        else ""
    )
    drawn = network_diagram(problem, found.conditions)
    sections = [
        Section(
            "Verdict",
            f"{verdict.name}: {verdict.because}. {recommended}",
            [evidence_table(found)] if found.trials else [],
        ),
        Section("The curves", "", _curves(found)),
        Section("Learning rates", _RATES, _rates(found)),
        Section(
            "The patch",
            "" if patch is None else _sentence(patch_line(found, patch)),
            _patch(found, patch),
        ),
        Section(
            "The network",
            "\n\n".join(found.conditions.notes),
            [*([drawn] if drawn else []), Facts(_network(found))],
        ),
        Section("Signal and gradient by layer", _SIGNALS if found.layers else "", _by_layer(found)),
        Section("Rules", f"Margin: {MARGIN:g} of the loss of guessing.", [rules]),
        Section("How to repeat it", "", [Code(_again(found, command), "Command")]),
    ]
    facts = {
        "task": problem.task,
        "examples": f"{len(problem.inputs):,} and {len(problem.held_inputs):,} held out",
        "trials": str(len(found.trials)),
        "steps a trial": str(found.steps),
        "time": format_duration(found.seconds),
    }
    if found.interrupted:
        facts["ended"] = "by hand, before all that was planned"
    return Page(
        f"Diagnosis of {problem.name}",
        "Each condition is a network that would be better if the suspected cause were true.",
        [section for section in sections if section.items or section.text],
        facts,
    )


def patch_line(found: Diagnosis, patch: Patch) -> str:
    """In one line whether it is recommended, and by what; the seeds that were judged beside the one of the proof."""
    if found.proof is None:
        why = found.evidence.fault or (
            "it was stopped before" if found.interrupted else "nothing was trained"
        )
        return f"a patch was made, not tried and so not recommended: {why}"
    train = found.evidence.train
    num = len(train["deep"])
    seeds = f"the {num} seeds" if num > 1 else "the seed"
    judged = f"on {seeds} judged before {statistics.fmean(train['deep']):.2f} and {statistics.fmean(train['shortcuts']):.2f}"
    end = (
        "the patch is recommended"
        if found.proof.helps
        else "the patch was written because it was asked for"
    )
    return f"{found.proof.told()} ({judged}); {end}"


_OTHERS = {
    "given": "the network at the learning rate given",
    "constructed": "the trained shallow network, and identities for the blocks that it lacks",
    "continued": "the constructed one, trained on",
}


def evidence_table(found: Diagnosis) -> Table:
    """A row a condition: training and held-out score over seeds."""
    rows: list[list[Cell]] = []
    for name, scores in found.evidence.train.items():
        own = found.conditions.made.get(name)
        what = own.what if own is not None else _OTHERS[name]
        train, held = summary(list(scores)), summary(list(found.evidence.held[name]))
        around = (
            ""
            if train.interval is None
            else f"{train.interval.low:.3f} to {train.interval.high:.3f}"
        )
        rows.append([name, what, train.mean, train.standard_deviation, around, held.mean, train.n])
    columns: list[Column | str] = [
        "condition",
        "what it is",
        Column("training", ".3f", True),
        Column("sd", ".3f", True),
        Column("95 % interval", numeric=True),
        Column("held out", ".3f", True),
        Column("seeds", "d", True),
    ]
    return Table(
        "Losses on clean data as shares of the loss of guessing: 1 is guessing, 0 is perfect; training at most 2.",
        columns,
        rows,
    )


def diagnosis_json(found: Diagnosis, *, patch: Patch | None = None) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "network": found.problem.name,
        "verdict": found.verdict.name,
        "because": found.verdict.because,
        "certain": found.verdict.certain,
        "interrupted": found.interrupted,
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
        "held_scores_at_half": {
            name: list(scores) for name, scores in found.evidence.held_at_half.items()
        },
        "neighbors_held_score": found.evidence.neighbors,
        "gradient_ratio_at_start": _number(found.start.gradient_ratio),
        "dead_share_at_start": _number(found.start.dead_share),
        "layer_signals": {
            name: [
                {
                    "name": one.name,
                    "response": _number(one.response),
                    "gradient": _number(one.gradient),
                }
                for one in layers
            ]
            for name, layers in found.layers.items()
        },
        "patch": None if patch is None else _patch_json(patch),
        "proof": None if found.proof is None else _proof_json(found.proof),
        "steps": found.steps,
        "trials": len(found.trials),
        "seconds": round(found.seconds, 1),
        "rules": [{"verdict": name, "when": when} for name, when in RULES],
    }


def _patch_json(patch: Patch) -> dict[str, Any]:
    around = list(patch.around)
    return {
        "kind": patch.kind,
        "file": str(patch.path),
        "use": patch.use,
        "shortcuts_around": around,
        "text": patch.text,
    }


def _proof_json(proof: Proof) -> dict[str, Any]:
    before, after = (
        {
            "learning_rate": trial.lr,
            "train_score": trial.train_score,
            "held_score": trial.held_score,
            "curve": [[step, _number(score)] for step, score in trial.curve],
        }
        for trial in (proof.before, proof.after)
    )
    return {
        "seed": proof.before.seed,
        "before": before,
        "after": after,
        "gain": proof.gain,
        "helps": proof.helps,
    }


_SIGNALS = (
    "At the start, on a few inputs; no more is decided by it than what is tried. Norms such as these look healthy in networks that "
    "degrade, and ill in some that train."
)
_RATES = (
    "Each condition at its best of a few, chosen by training loss on a seed of its own: depth is not to be taken for step size. Where "
    "longer trials were made, the rates of the network and of the shallower ones were chosen once more in these."
)
_HIGHEST = 1.5  # of the curves: a loss above that of guessing is bad enough


def _curves(found: Diagnosis) -> list[Figure]:
    judged = [
        trial for trial in found.trials if trial.seed != CHOICE_SEED and trial.steps == found.steps
    ]
    series: list[Series] = []
    most_seeds = 0
    for name in found.evidence.train:
        curves = {
            trial.seed: list(trial.curve)
            for trial in judged
            if trial.condition == name and trial.curve
        }
        series += seeds_series(name, curves, group=name)
        most_seeds = max(most_seeds, len(curves))
    if not series:
        return []
    caption = (
        f"As trained, on running batches. Bold: mean over seeds; thin: single seeds. 1 is the loss of guessing.{interval_note(most_seeds)}"
        f"{_cut(series)}"
    )
    return [
        Figure(
            "curves",
            "Training loss by condition",
            caption,
            "step",
            "loss / loss of guessing",
            series,
            y_limits=(0.0, _HIGHEST),
        )
    ]


def _cut(series: Sequence[Series]) -> str:
    return (
        f" What lies above {_HIGHEST:g} is not drawn."
        if any(y > _HIGHEST for one in series for y in one.y if y is not None)
        else ""
    )


def _patch(found: Diagnosis, patch: Patch | None) -> list[Figure | Table | Code]:
    """Curves and numbers before and after, how to use the patch, and its text."""
    if patch is None:
        return []
    use = (
        "Apply it, from the folder in which the diagnosis was made"
        if patch.kind == "diff"
        else "Build your network by"
    )
    files: list[Figure | Table | Code] = [Code(patch.use, use), Code(patch.text, str(patch.path))]
    if found.proof is None:
        return files
    pair = (found.proof.before, found.proof.after)
    series = [
        Series(
            trial.condition, [step for step, _ in trial.curve], [score for _, score in trial.curve]
        )
        for trial in pair
    ]
    caption = f"On seed {pair[0].seed}, by which nothing was chosen or judged, each at its best learning rate. 1 is the loss of guessing."
    name, title = "proof", "Training loss before and after"
    figure = Figure(
        name,
        title,
        caption + _cut(series),
        "step",
        "loss / loss of guessing",
        series,
        y_limits=(0.0, _HIGHEST),
    )
    rows = [
        [
            trial.condition,
            f"{trial.lr:.3g}",
            trial.train_score,
            trial.held_score,
            trial.train_error_pct,
        ]
        for trial in pair
    ]
    columns: list[Column | str] = [
        "network",
        "learning rate",
        Column("training", ".3f", True),
        Column("held out", ".3f", True),
        Column("training error (%)", ".2f", True),
    ]
    return [
        figure,
        Table(
            f"At the end, after {pair[0].steps} steps, as shares of the loss of guessing.",
            columns,
            rows,
        ),
        *files,
    ]


def _by_layer(found: Diagnosis) -> list[Panels]:
    names = {"deep": "as it is", "shortcuts": "with shortcuts"}
    parts: tuple[tuple[str, str, str, Callable[[LayerSignal], float]], ...] = (
        ("signal", "Response of each layer", "root mean square", lambda one: one.response),
        ("gradient", "Gradient of each layer's weights", "norm", lambda one: one.gradient),
    )
    figures = [
        Figure(
            key,
            title,
            "Layers in order.",
            "layer",
            label,
            [
                Series(
                    names[name], range(1, len(layers) + 1), [_number(value(one)) for one in layers]
                )
                for name, layers in found.layers.items()
            ],
            y_log=True,
        )
        for key, title, label, value in parts
    ]
    return [Panels(figures)] if found.layers else []


def _rates(found: Diagnosis) -> list[Table]:
    if not found.rates:
        return []
    tried = sorted({lr for _, scores in found.rates.values() for lr in scores})
    rows = [
        [name, *(scores.get(lr) for lr in tried), f"{lr:.3g}"]
        for name, (lr, scores) in found.rates.items()
    ]
    columns: list[Column | str] = [
        "condition",
        *(Column(f"at {lr:.3g}", ".3f", True) for lr in tried),
        "taken",
    ]
    which = (
        "the learning rate given"
        if found.problem.lr_is_given
        else "none was given, the usual learning rate"
    )
    return [
        Table(
            f"Training score; {which} is {found.problem.lr:.3g} ({found.problem.optimizer_name}).",
            columns,
            rows,
        )
    ]


def _network(found: Diagnosis) -> dict[str, str]:
    made = found.conditions
    facts = {
        "layers": str(made.num_layers or "not known: it cannot be laid open"),
        "left out for the shallower one": ", ".join(made.left_out),
        "shortcuts around": ", ".join(made.shortcuts_around),
        "gradient, first third of layers over last, at start": _text(found.start.gradient_ratio),
        "the same gradients at the end": _text(
            _median([trial.end.gradient_ratio for trial in _deep(found)])
        ),
        "dead units at start": _text(found.start.dead_share, percent=True),
        "dead units at the end": _text(
            _median([trial.end.dead_share for trial in _deep(found)]), percent=True
        ),
        "nearest neighbors, held out": f"{found.evidence.neighbors:.3f}" if found.trials else "",
    }
    return {label: text for label, text in facts.items() if text}


def _again(found: Diagnosis, command: Sequence[str]) -> str:
    """With the number of steps, by which it does not hang on the machine."""
    is_told = not found.short_steps or any(part.startswith("--steps") for part in command)
    return shlex.join(command if is_told else [*command, "--steps", str(found.short_steps)])


def _deep(found: Diagnosis) -> list[Trial]:
    return [
        trial
        for trial in found.trials
        if trial.condition == "deep" and trial.seed != CHOICE_SEED and trial.steps == found.steps
    ]


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text(value: float | None, *, percent: bool = False) -> str:
    return "" if value is None else f"{value:.0%}" if percent else f"{value:.3g}"
