"""The HTML page of a diagnosis."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence

from reslearn.diagnose.advice import rate_line
from reslearn.diagnose.answer import THEN, answer_lines, leads_with_screening
from reslearn.diagnose.diagnosis import Diagnosis
from reslearn.diagnose.diagnosis_json import finite_or_none
from reslearn.diagnose.drawing import network_diagram
from reslearn.diagnose.patch import Patch
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.signals import LayerSignal
from reslearn.diagnose.trial import Trial
from reslearn.diagnose.verdict_rules import RULES
from reslearn.report import (
    Cell,
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
from reslearn.report.curves import interval_note, seeds_series
from reslearn.report.run import format_duration
from reslearn.study import interval_text, summary

_FURTHER_NETWORKS = {
    "given": "the network at the given learning rate",
    "constructed": "the trained shallow network, with identities for the blocks it lacks",
    "continued": "the constructed network after further training",
}
_SIGNALS_TEXT = (
    "Measured before training, on a few inputs. These numbers decide only which variants are "
    "tried. Such norms look healthy in networks that degrade, and bad in some that train."
)
_RATES_TEXT = (
    "Each variant is trained at its best learning rate, so that a bad rate is not mistaken for "
    "depth. Rates are chosen by training loss on separate seeds. If there were longer trials, the "
    "rates of the network and of the shallower networks were tuned again at their length."
)
_MAX_DRAWN = 1.5
"""Upper end of the axis of scores: a loss far above guessing is bad enough."""


def diagnosis_page(
    diagnosis: Diagnosis, *, command: Sequence[str], patch: Patch | None = None
) -> Page:
    """Return the page of a diagnosis.

    Args:
        command: The command line that made the diagnosis.
        patch: Shown with its proof.
    """
    problem, verdict = diagnosis.problem, diagnosis.verdict
    first_line, *further_lines = answer_lines(diagnosis, command)
    summary_text = "\n\n".join(further_lines)
    if diagnosis.screening.proof is not None:
        further = [line for line in further_lines if line.startswith(THEN)]
        proof_text = f"{verdict.name}: shown before training, without any trial."
        summary_text = "\n\n".join([proof_text, *further])
    if patch is not None and diagnosis.proof is not None and diagnosis.proof.helps:
        summary_text += f"\n\n{patch_line(diagnosis, patch)}"
    patch_text = "" if patch is None else patch_line(diagnosis, patch)
    if patch is None and diagnosis.proof is not None:
        patch_text = f"{diagnosis.proof.text()}."
    rules = Table("Applied in this order.", ["verdict", "when"], list(RULES))
    command_text = Code(_repeat_command(diagnosis, command), "Command")
    screening = _screening_section(diagnosis)
    is_first = leads_with_screening(diagnosis)
    sections = [
        *([screening] if is_first else []),
        Section("Verdict", summary_text, [scores_table(diagnosis)] if diagnosis.trials else []),
        *([] if is_first else [screening]),
        Section("The curves", "", _curves(diagnosis)),
        Section("Learning rates", _rates_text(diagnosis), _rates(diagnosis)),
        Section(
            "The repair" if patch is None else "The patch",
            patch_text,
            [*_proof_items(diagnosis.proof), *_patch_items(patch)],
        ),
        Section("The network", _notes(diagnosis), _network(diagnosis)),
        Section(
            "Signal and gradient by layer",
            _SIGNALS_TEXT if diagnosis.layers else "",
            _signals_by_layer(diagnosis),
        ),
        Section("Rules", f"Margin: {MARGIN:g} of the loss of guessing.", [rules], is_folded=True),
        Section("How to repeat it", "", [command_text]),
    ]
    facts = {
        "task": problem.task,
        "examples": f"{len(problem.inputs):,} and {len(problem.held_inputs):,} held out",
        "trials": str(len(diagnosis.trials)),
        "steps per trial": str(diagnosis.steps),
        "time": format_duration(diagnosis.seconds),
    }
    if diagnosis.interrupted:
        facts["interrupted"] = "yes, before all planned trials were done"
    return Page(
        f"Diagnosis of {problem.name}",
        first_line,
        [section for section in sections if section.items or section.text],
        facts,
    )


def patch_line(diagnosis: Diagnosis, patch: Patch) -> str:
    """Say in one line whether the patch is recommended, and with which losses."""
    if diagnosis.proof is None:
        reason = diagnosis.scores.fault
        if not reason and diagnosis.interrupted:
            reason = "the diagnosis was stopped before"
        reason = reason or "nothing was trained"
        return f"The patch was not tried, so it is not recommended: {reason}."
    advice = "was written because you asked for it"
    if diagnosis.proof.helps:
        advice = "is recommended"
    return f"{diagnosis.proof.text()}{_judged_means(diagnosis)}. The patch {advice}."


def _judged_means(diagnosis: Diagnosis) -> str:
    """Return the mean losses before and after on the judged seeds, in parentheses."""
    train, proof = diagnosis.scores.train, diagnosis.proof
    assert proof is not None, "there is a patch with a proof"
    if not train.get(proof.repair) or proof.further:
        return ""
    num_seeds = len(train["deep"])
    seeds = f"{num_seeds} judged seed{'s' * (num_seeds > 1)}"
    means = statistics.fmean(train["deep"]), statistics.fmean(train[proof.repair])
    return f" ({means[0]:.2f} and {means[1]:.2f} on the {seeds})"


def _screening_section(diagnosis: Diagnosis) -> Section:
    """Return what was visible before training, the most certain first."""
    screening = diagnosis.screening
    paragraphs = [f"{finding.level.capitalize()}: {finding.text}" for finding in screening.findings]
    if not paragraphs:
        paragraphs = ["No fault is visible before training."]
    paragraphs += [f"Not checked: {failure}." for failure in screening.failures]
    return Section("Screening", "\n\n".join(paragraphs))


def scores_table(diagnosis: Diagnosis) -> Table:
    """Return training and held-out scores over seeds, one row per variant."""
    rows: list[list[Cell]] = []
    for name, scores in diagnosis.scores.train.items():
        variant = diagnosis.variants.by_name.get(name)
        description = variant.description if variant is not None else _FURTHER_NETWORKS[name]
        train, held_out = summary(list(scores)), summary(list(diagnosis.scores.held_out[name]))
        interval = interval_text(train.interval, digits=3)
        deviation = train.standard_deviation
        rows.append([name, description, train.mean, deviation, interval, held_out.mean, train.n])
    columns: list[Column | str] = [
        "variant",
        "description",
        Column("training", ".3f", True),
        Column("sd", ".3f", True),
        Column("95 % interval", numeric=True),
        Column("held out", ".3f", True),
        Column("seeds", "d", True),
    ]
    caption = (
        "Losses on clean data, divided by the loss of guessing: 1 is guessing, 0 is perfect. "
        "Training losses are at most 2."
    )
    return Table(caption, columns, rows)


def _curves(diagnosis: Diagnosis) -> list[Item]:
    series: list[Series] = []
    max_seeds = 0
    for name in diagnosis.scores.train:
        trials = diagnosis.judged.get(name, ())
        curves = {trial.seed: list(trial.curve) for trial in trials if trial.curve}
        series += seeds_series(name, curves, group=name)
        max_seeds = max(max_seeds, len(curves))
    if not series:
        return []
    caption = (
        "Loss on running batches. Bold: mean over seeds; thin: single seeds. 1 is the loss of "
        f"guessing.{interval_note(max_seeds)}"
    )
    return [_loss_figure("curves", "Training loss by variant", caption, series)]


def _loss_figure(name: str, title: str, caption: str, series: Sequence[Series]) -> Figure:
    if any(_peak(curve) > _MAX_DRAWN for curve in series):
        caption += f" Losses above {_MAX_DRAWN:g} are not drawn."
    y_label = "loss / loss of guessing"
    limits = (0.0, _MAX_DRAWN)
    return Figure(name, title, caption, "step", y_label, series, y_limits=limits)


def _peak(curve: Series) -> float:
    return max((y for y in curve.y if y is not None), default=0.0)


def _rates_text(diagnosis: Diagnosis) -> str:
    has_choice = any(choice.scores for choice in diagnosis.rates.values())
    return f"{rate_line(diagnosis)} {_RATES_TEXT}" if has_choice else rate_line(diagnosis)


def _rates(diagnosis: Diagnosis) -> list[Item]:
    if not diagnosis.rates:
        return []
    rates: set[float] = set()
    for choice in diagnosis.rates.values():
        rates.update(choice.scores)
    if not rates:
        return []
    rows: list[list[Cell]] = []
    for name, choice in diagnosis.rates.items():
        if not choice.scores:
            continue
        scores = [choice.scores.get(lr) for lr in sorted(rates)]
        rows.append([name, *scores, f"{choice.lr:.3g}"])
    problem = diagnosis.problem
    columns: list[Column | str] = []
    for lr in sorted(rates):
        mark = " (given)" if problem.lr_is_given and lr == problem.lr else ""
        columns.append(Column(f"at {lr:.3g}{mark}", ".3f", True))
    source = "The given learning rate"
    if not problem.lr_is_given:
        source = "No learning rate was given; the usual one"
    caption = f"Training score. {source} is {problem.lr:.3g} ({problem.optimizer_name})."
    return [Table(caption, ["variant", *columns, "chosen"], rows)]


def _proof_items(proof: Proof | None) -> list[Item]:
    """Return curves and numbers before and after a repair."""
    if proof is None:
        return []
    before, after = proof.before, proof.after
    caption = (
        f"On seed {before.seed}, on which nothing was chosen or judged. 1 is the loss of guessing."
    )
    series = [_trial_series(before), _trial_series(after)]
    figure = _loss_figure("proof", "Training loss before and after", caption, series)
    columns: list[Column | str] = [
        "network",
        "learning rate",
        Column("steps", "d", True),
        Column("training", ".3f", True),
        Column("held out", ".3f", True),
        Column("training error (%)", ".2f", True),
    ]
    caption = "Losses are divided by the loss of guessing."
    table = Table(caption, columns, [_trial_row(before), _trial_row(after)])
    return [figure, table]


def _patch_items(patch: Patch | None) -> list[Item]:
    """Return how to use the patch, and its text."""
    if patch is None:
        return []
    title = "Build your network with"
    if patch.kind == "diff":
        title = "Apply it, from the folder in which the diagnosis was made"
    return [Code(patch.use, title), Code(patch.text, str(patch.path))]


def _trial_series(trial: Trial) -> Series:
    steps, scores = [], []
    for step, score in trial.curve:
        steps.append(step)
        scores.append(score)
    return Series(trial.variant, steps, scores)


def _trial_row(trial: Trial) -> list[Cell]:
    scores = (trial.train_score, trial.held_score, trial.train_error_pct)
    return [trial.variant, f"{trial.lr:.3g}", trial.steps, *scores]


def _network(diagnosis: Diagnosis) -> list[Item]:
    """Return the drawing of the network, if it can be traced, and facts about it."""
    variants = diagnosis.variants
    deep = diagnosis.judged.get("deep", ())
    ratio_at_end = _median([trial.end.gradient_ratio for trial in deep])
    dead_at_end = _median([trial.end.dead_share for trial in deep])
    start = diagnosis.start
    facts = {
        "layers": str(variants.num_layers or "unknown: the network cannot be traced"),
        "removed in the shallow variant": ", ".join(variants.removed_blocks),
        "shortcuts around": ", ".join(variants.shortcuts_around),
        "gradient, first third of layers over last, at start": _text(start.gradient_ratio, ".3g"),
        "the same gradients at the end": _text(ratio_at_end, ".3g"),
        "dead units at start": _text(start.dead_share, ".0%"),
        "dead units at the end": _text(dead_at_end, ".0%"),
        "nearest neighbors, held out": _text(finite_or_none(diagnosis.scores.neighbors), ".3f"),
    }
    items: list[Item] = [Facts({label: text for label, text in facts.items() if text})]
    drawing = network_diagram(diagnosis.problem, variants)
    return items if drawing is None else [drawing, *items]


def _signals_by_layer(diagnosis: Diagnosis) -> list[Item]:
    if not diagnosis.layers:
        return []

    def figure(
        name: str, title: str, y_label: str, measure: Callable[[LayerSignal], float]
    ) -> Figure:
        labels = {"deep": "unchanged", "shortcuts": "with shortcuts"}
        series = []
        for variant, layers in diagnosis.layers.items():
            values = [finite_or_none(measure(layer)) for layer in layers]
            series.append(Series(labels[variant], range(1, len(layers) + 1), values))
        return Figure(name, title, "Layers in order.", "layer", y_label, series, y_log=True)

    responses = figure(
        "signal", "Response of each layer", "root mean square", lambda layer: layer.response
    )
    gradients = figure(
        "gradient", "Gradient of each layer's weights", "norm", lambda layer: layer.gradient
    )
    return [Panels([responses, gradients])]


def _repeat_command(diagnosis: Diagnosis, command: Sequence[str]) -> str:
    """Return the command with the number of steps, so that it is independent of the machine."""
    has_steps = any(word.startswith("--steps") for word in command)
    if diagnosis.short_steps and not has_steps:
        command = [*command, "--steps", str(diagnosis.short_steps)]
    return shlex.join(command)


def _median(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if finite_or_none(value) is not None]
    return statistics.median(finite) if finite else None  # type: ignore[type-var]


def _text(value: float | None, specification: str) -> str:
    return "" if value is None else format(value, specification)


def _notes(diagnosis: Diagnosis) -> str:
    return "\n\n".join(f"Note: {note}." for note in diagnosis.variants.notes)
