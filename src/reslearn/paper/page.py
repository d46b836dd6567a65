"""The page of the claims: what was found in two sentences that need no prior knowledge, the table, the figures, the rules, the commands."""

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Finding, Outcome, Runs
from reslearn.paper.figures import paper_figures
from reslearn.paper.protocol import model_name
from reslearn.paper.runner import ClaimsReport
from reslearn.paper.wording import mean_of, or_none
from reslearn.report import Code, Facts, Figure, Page, Panels, Section, Table, Verdict
from reslearn.report.run import environment_facts, format_duration
from reslearn.runs import to_json_value
from reslearn.study.collect import Kind

OUTCOMES: tuple[Outcome, ...] = ("shown", "not shown", "undecided", "not testable here")
_DATA_WORDS = {
    "digits": "1,437 scans of handwritten digits (8 x 8 pixels), and 360 more to test on",
    "cifar10": "CIFAR-10, small color photographs of ten kinds of things",
    "cifar100": "CIFAR-100, small color photographs of a hundred kinds of things",
}


def claims_page(report: ClaimsReport, *, command: Sequence[str]) -> Page:
    """The page of `report`; `command` is what made it."""
    evidence, findings = report.evidence, report.findings
    figures: list[Any] = [_own_panels(finding) for finding in findings if finding.figures]
    sections = [
        Section("What was found", headline(evidence)),
        Section(
            "The claims",
            "Each claim is an experiment whose rule was fixed before the data were looked at.",
            [claims_table(findings)],
        ),
        Section("As in the paper's figures", "", paper_figures(evidence)),
        Section("Figures of single claims", "", figures),
        Section("Rules", "What each verdict was decided by.", [_rules(findings)]),
        Section(
            "Learning rates",
            _LEARNING_RATES + _choice_runs(evidence.budget),
            _learning_rates(evidence),
        ),
        Section(
            "How to repeat it",
            "",
            [
                Code(shlex.join(command), "Command"),
                Facts(_circumstances(evidence), "Circumstances"),
            ],
        ),
    ]
    return Page(
        "Deep residual learning, claim by claim",
        "What the first page of He, Zhang, Ren and Sun (2015) claims, and what this machine measured.",
        [section for section in sections if section.items or section.title == "What was found"],
        _facts(report),
    )


def headline(evidence: Runs) -> str:
    """The result for a newcomer, in plain words and the numbers of this machine."""
    shallow, deep = min(evidence.budget.depths), max(evidence.budget.depths)
    data = _DATA_WORDS.get(evidence.budget.data, evidence.budget.data)
    error = {
        (kind, depth): _mean_error(evidence, kind, depth)
        for kind in protocol.BOTH
        for depth in (shallow, deep)
    }
    opening = f"Networks of {shallow} to {deep} layers learned to tell apart {data}."
    if any(math.isnan(value) for value in error.values()):
        return opening
    return (
        f"{opening} A stack of plain layers got {error['plain', shallow]:.1f} % of the very images it had learned from wrong when it was "
        f"{shallow} layers deep, and {error['plain', deep]:.1f} % when it was {deep} layers deep.\n\n"
        f"The same layers with shortcuts around each pair of them, which is all that makes a network residual, got "
        f"{error['residual', shallow]:.1f} % and {error['residual', deep]:.1f} % wrong. The shortcuts add no parameters: "
        "what differs is how easily the network is trained."
    )


def claims_table(findings: Sequence[Finding]) -> Table:
    """Claim, verdict, measured: in this order, so that a phone shows the verdict without scrolling."""
    return Table(
        "Four outcomes are possible, and `not shown` is one of them.",
        ["", "claim", "verdict", "measured here"],
        [[f.claim.identifier, f.claim.text, Verdict(f.outcome), f.measured] for f in findings],
    )


def as_json(report: ClaimsReport) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "budget": report.evidence.budget.name,
        "data": report.evidence.budget.data,
        "seconds": round(report.seconds, 1),
        "runs": report.num_runs,
        "diverged": report.num_diverged,
        "claims": [
            {
                "claim": f.claim.identifier,
                "text": f.claim.text,
                "section": f.claim.section,
                "rule": f.claim.rule,
                "outcome": f.outcome,
                "measured": f.measured,
                "numbers": to_json_value(f.numbers),
                "rests_on": list(f.rests_on),
            }
            for f in report.findings
        ],
    }


_LEARNING_RATES = (
    "Each net was trained at its best of a few learning rates, chosen by training loss on seeds that were not used to judge. One for all "
    "would not tell depth from learning rate."
)


def _choice_runs(budget: Budget) -> str:
    return (
        f" The runs to choose by had {', '.join(budget.choice_overrides)}."
        if budget.choice_overrides
        else ""
    )


def _own_panels(finding: Finding) -> Figure | Panels:
    return finding.figures[0] if len(finding.figures) == 1 else Panels(finding.figures)


def _rules(findings: Sequence[Finding]) -> Table:
    rows = [[f.claim.identifier, f.claim.section, f.claim.rule] for f in findings]
    return Table("Rules, margins and where the paper says it.", ["", "in the paper", "rule"], rows)


def _learning_rates(evidence: Runs) -> list[Table]:
    rates = evidence.budget.learning_rates
    rows = []
    for model in protocol.models(evidence.budget):
        choice = protocol.choose(evidence, model)
        if any(math.isfinite(loss) for loss in choice.losses.values()):
            chosen = f"{choice.learning_rate:g}" + (" (edge)" if choice.at_edge else "")
            rows.append([model, *(or_none(choice.losses[rate]) for rate in rates), chosen])
    if not rows:
        return []
    columns = ["network", *(f"loss at {rate:g}" for rate in rates), "chosen"]
    shown = [
        [row[0], *("diverged" if v is None else f"{v:.3g}" for v in row[1:-1]), row[-1]]
        for row in rows
    ]
    return [
        Table(
            "Training loss at the end, batch-norm statistics recomputed; edge: a better one may lie beyond those tried.",
            columns,
            shown,
        )
    ]


def _mean_error(evidence: Runs, kind: Kind, depth: int) -> float:
    runs = [
        protocol.judged_run(evidence, model_name(kind, depth), seed)
        for seed in evidence.budget.judge_seeds
    ]
    return mean_of([float(run.result[protocol.TRAINING_ERROR]) for run in runs if run is not None])


def _facts(report: ClaimsReport) -> dict[str, str]:
    budget, count = report.evidence.budget, Counter(finding.outcome for finding in report.findings)
    return {
        "verdicts": ", ".join(
            f"{count[outcome]} {outcome}" for outcome in OUTCOMES if count[outcome]
        ),
        "data": budget.data,
        "budget": budget.name,
        "runs": f"{report.num_runs} complete"
        + (f", {report.num_diverged} diverged" if report.num_diverged else ""),
        "judged on": f"seeds {', '.join(map(str, budget.judge_seeds))}",
        "time": format_duration(report.seconds),
    }


def _circumstances(evidence: Runs) -> dict[str, str]:
    run = next(iter(evidence.runs.values()), None)
    return {} if run is None else environment_facts(run.environment)
