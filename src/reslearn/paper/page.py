"""Reports as pages and as JSON: one form for all claims, one for a table or figure."""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reslearn.paper.experiment import BOTH, Experiment, Line, Result, model_name
from reslearn.paper.figures import paper_figures
from reslearn.paper.run import Report
from reslearn.paper.text import HEADS, line_texts, mean_of, or_none, reasons_of
from reslearn.paper.trained import TRAINING_ERROR, Trained
from reslearn.report import (
    Cell,
    Code,
    Column,
    Drawing,
    Facts,
    Item,
    Page,
    Panels,
    Section,
    Table,
    Verdict,
)
from reslearn.report.run import environment_facts, format_duration
from reslearn.runs import to_json_value

_DATA_WORDS = {
    "digits": "1,437 scans of handwritten digits (8 x 8 pixels), and 360 more to test on",
    "cifar10": "CIFAR-10, small color photographs of ten kinds of things",
    "cifar100": "CIFAR-100, small color photographs of a hundred kinds of things",
}
_LEARNING_RATES = (
    "Each network was trained at the best of a few learning rates. They were chosen by training "
    "loss, on other seeds than those of the verdicts. One rate for all networks would not "
    "separate the effect of depth from the effect of the learning rate."
)
_RULES_TEXT = (
    "The rules behind the verdicts. A judged seed is a seed that was not used to choose learning "
    "rates."
)


def claims_page(report: Report, *, command: Sequence[str]) -> Page:
    """Return the page of the claims: summary, table, figures, rules and command.

    Args:
        command: The command that made the report.
    """
    trained = report.trained
    claims = list(zip(report.experiments, report.results, strict=True))
    figures = paper_figures(trained)
    lead = figures.pop() if figures else None  # error against depth, which shows the result
    own_figures = [_panels(result) for result in report.results if result.figures]
    sections = [
        Section("What was found", headline(trained)),
        Section(
            "The claims",
            "Each claim is an experiment with a rule that was fixed before anyone saw the data.",
            [_claims_table(claims)],
        ),
        Section("Figures of the paper", "", figures),
        Section("Figures of single claims", "", own_figures),
        Section("Rules", _RULES_TEXT, [_rules_table(report.experiments)]),
        Section("Learning rates", _learning_rates_text(trained), _learning_rates(trained)),
        Section("How to repeat it", "", _repeat_items(trained, command)),
    ]
    return Page(
        "Deep residual learning, claim by claim",
        "The claims on the first page of He, Zhang, Ren and Sun (2015), and what this machine "
        "measured.",
        [section for section in sections if section.items or section.title == "What was found"],
        _claims_facts(report),
        lead,
    )


def headline(trained: Trained) -> str:
    """Return the result for a newcomer, in plain words and with the numbers of this machine."""
    shallow, deep = min(trained.budget.depths), max(trained.budget.depths)
    data = _DATA_WORDS.get(trained.budget.data, trained.budget.data)
    error = {
        (kind, depth): _mean_error(trained, model_name(kind, depth))
        for kind, depth in itertools.product(BOTH, (shallow, deep))
    }
    opening = f"Networks of {shallow} to {deep} layers learned to tell apart {data}."
    if any(math.isnan(value) for value in error.values()):
        return opening
    plain_shallow, plain_deep = error["plain", shallow], error["plain", deep]
    residual_shallow, residual_deep = error["residual", shallow], error["residual", deep]
    return (
        f"{opening} A plain stack of {shallow} layers misclassified {plain_shallow:.1f} % of the "
        f"images that it had learned from. A plain stack of {deep} layers misclassified "
        f"{plain_deep:.1f} %.\n\n"
        "A residual network consists of the same layers with a shortcut around each pair of them. "
        f"It misclassified {residual_shallow:.1f} % with {shallow} layers and "
        f"{residual_deep:.1f} % with {deep} layers. The shortcuts add no parameters: the "
        "difference is how easily the network is trained."
    )


def _mean_error(trained: Trained, model: str) -> float:
    return mean_of(trained.value(model, seed, TRAINING_ERROR) for seed in trained.seeds)


def exhibit_page(report: Report, *, command: Sequence[str]) -> Page:
    """Return the page of a table or figure: lines, figures, tables, rule and command."""
    (experiment,), (result,) = report.experiments, report.results
    lead = result.figures[0] if result.figures else None
    reasons: list[Item] = [f"{reason}." for reason in reasons_of(result.lines)]
    sections = [
        Section(
            "The paper and ours",
            "\n\n".join((*result.notes, *report.notes)),
            [lines_table(result.lines), *reasons] if result.lines else [],
        ),
        Section("Figures", "", result.figures[1:]),
        Section("Tables", "", result.tables),
        Section("Rule", experiment.rule),
        Section("How to repeat it", "", _repeat_items(report.trained, command)),
    ]
    return Page(
        f"{experiment.section.partition(',')[0]}: {experiment.text}",
        "He, Zhang, Ren and Sun (2015), and what this machine measured.",
        [section for section in sections if section.items or section.text],
        _exhibit_facts(report),
        lead,
    )


def lines_table(lines: Iterable[Line]) -> Table:
    """Return a table of lines: what, verdict, the paper's number, ours, the difference."""
    columns: list[Column | str] = ["", "verdict", *(Column(head, numeric=True) for head in HEADS)]
    caption = (
        "Ours: mean ± standard deviation, 95 % confidence interval of the mean, and number of "
        "seeds. Difference: ours minus the paper's, or the difference that the line is about. The "
        "interval of a verdict on several depths is simultaneous; its confidence is given if it "
        "is not 95 %."
    )
    rows: list[list[Cell]] = [
        [line.what, Verdict(line.outcome), *line_texts(line)] for line in lines
    ]
    return Table(caption, columns, rows)


def claims_json(report: Report) -> dict[str, Any]:
    """Return the report of the claims as JSON values."""
    budget = report.trained.budget
    return {
        "budget": budget.name,
        "data": budget.data,
        "seconds": round(report.seconds, 1),
        "runs": len(report.trained.runs),
        "diverged": len(report.trained.diverged),
        "claims": [
            {
                "claim": experiment.name,
                "text": experiment.text,
                "section": experiment.section,
                "rule": experiment.rule,
                "outcome": result.outcome,
                "measured": result.measured,
                "numbers": to_json_value(result.numbers),
                "rests_on": _rests_on(report.trained, experiment, result),
            }
            for experiment, result in zip(report.experiments, report.results, strict=True)
        ],
    }


def exhibit_json(report: Report) -> dict[str, Any]:
    """Return the report of a table or figure as JSON values."""
    (experiment,), (result,) = report.experiments, report.results
    budget = report.trained.budget
    return {
        "name": experiment.name,
        "title": experiment.text,
        "section": experiment.section,
        "rule": experiment.rule,
        "budget": budget.name,
        "data": budget.data or None,
        "seconds": round(report.seconds, 1),
        "runs": len(report.trained.runs),
        "diverged": len(report.trained.diverged),
        "lines": [_line_json(line) for line in result.lines],
        "notes": [*result.notes, *report.notes],
        "numbers": to_json_value(result.numbers),
    }


def _line_json(line: Line) -> dict[str, Any]:
    numbers = line.summary
    interval = None if numbers is None else numbers.interval
    return {
        "what": line.what,
        "unit": line.unit,
        "paper": line.paper,
        "values": [or_none(value) for value in line.values],
        "mean": None if numbers is None else or_none(numbers.mean),
        "standard_deviation": None if numbers is None else numbers.standard_deviation,
        "interval": None if interval is None else list(interval),
        "difference": line.difference,
        "difference_interval": None if line.interval is None else list(line.interval),
        "difference_confidence": None if line.interval is None else line.confidence,
        "verdict": line.outcome,
        "because": line.because,
    }


def _rests_on(trained: Trained, experiment: Experiment, result: Result) -> list[str]:
    if result.rests_on is None:
        return trained.budget.models(experiment.kinds)
    return list(result.rests_on)


def _claims_table(claims: Iterable[tuple[Experiment, Result]]) -> Table:
    # The verdict stands before the measurement, so that a phone shows it without scrolling.
    rows: list[list[Cell]] = [
        [experiment.name, experiment.text, _verdict(result), result.measured]
        for experiment, result in claims
    ]
    return Table(
        "There are four possible verdicts, and `not shown` is one of them.",
        ["", "claim", "verdict", "measured here"],
        rows,
    )


def _verdict(result: Result) -> Verdict:
    assert result.outcome is not None, "a claim has one verdict"
    return Verdict(result.outcome)


def _rules_table(experiments: Iterable[Experiment]) -> Table:
    rows = [[experiment.name, experiment.section, experiment.rule] for experiment in experiments]
    caption = "Rules with their margins, and the place of each claim in the paper."
    return Table(caption, ["", "in the paper", "rule"], rows)


def _panels(result: Result) -> Drawing | Panels:
    if len(result.figures) == 1:
        return result.figures[0]
    return Panels([figure for figure in result.figures if not isinstance(figure, Panels)])


def _learning_rates_text(trained: Trained) -> str:
    settings = ", ".join(trained.budget.choice_overrides)
    runs = f" Settings of the runs that chose the rates: {settings}." if settings else ""
    return _LEARNING_RATES + runs


def _learning_rates(trained: Trained) -> list[Table]:
    """Return the table of losses by network and learning rate; nothing if there was no choice."""
    rates = trained.budget.learning_rates
    rows = []
    for model in trained.budget.models():
        losses = trained.choice_losses(model)
        if any(math.isfinite(loss) for loss in losses.values()):
            chosen = trained.learning_rate(model)
            edge = " (edge)" if chosen in (min(losses), max(losses)) else ""
            rows.append([model, *(_loss_text(losses[rate]) for rate in rates), f"{chosen:g}{edge}"])
    if not rows:
        return []
    caption = (
        "Training loss at the end, with recomputed batch-norm statistics. Edge: a better rate may "
        "lie beyond those that were tried."
    )
    return [Table(caption, ["network", *(f"loss at {rate:g}" for rate in rates), "chosen"], rows)]


def _loss_text(loss: float) -> str:
    return f"{loss:.3g}" if math.isfinite(loss) else "diverged"


def _repeat_items(trained: Trained, command: Sequence[str]) -> list[Item]:
    items: list[Item] = [Code(shlex.join(command), "Command")]
    run = next(iter(trained.runs.values()), None)
    if run is not None:
        items.append(Facts(environment_facts(run.environment), "Environment of the first run"))
    return items


def _claims_facts(report: Report) -> dict[str, str]:
    count = Counter(result.outcome for result in report.results)
    budget = report.trained.budget
    return {
        "verdicts": ", ".join(
            f"{count[outcome]} {outcome}"
            for outcome in ("shown", "not shown", "undecided", "not testable here")
            if count[outcome]
        ),
        "data": budget.data,
        "budget": budget.name,
        "runs": _runs_text(report),
        "judged on": f"seeds {', '.join(map(str, budget.judge_seeds))}",
        "time": format_duration(report.seconds),
    }


def _exhibit_facts(report: Report) -> dict[str, str]:
    budget, trained = report.trained.budget, report.trained
    facts = {}
    if trained.runs or trained.diverged:
        facts = {
            "data": budget.data,
            "budget": budget.name,
            "runs": _runs_text(report),
            "seeds": ", ".join(map(str, budget.judge_seeds)),
        }
    return {**facts, "time": format_duration(report.seconds)}


def _runs_text(report: Report) -> str:
    num_diverged = len(report.trained.diverged)
    diverged = f", {num_diverged} diverged" if num_diverged else ""
    return f"{len(report.trained.runs)} complete{diverged}"
