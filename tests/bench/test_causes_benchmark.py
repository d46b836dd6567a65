"""The second generation of networks with known causes: members, halves, tasks, and truths."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.causes import members as members_file
from benchmarks.causes import tasks
from benchmarks.causes.members import HALVES, Member, members
from benchmarks.causes.truth import settle, settle_fault
from benchmarks.depth import run
from benchmarks.depth.score import score
from benchmarks.generations import SECOND

from reslearn.diagnose import RULES, Scores, decide

KINDS = sorted({member.kind for member in members()})
TASKS = [
    *(tasks.spirals, tasks.checkerboard, tasks.rings, tasks.clusters, tasks.yields),
    *(tasks.impedance, tasks.impedance_raw, tasks.prices, tasks.returns, tasks.chances),
    *(tasks.ledger, tasks.ledger_scaled, tasks.chirps, tasks.bumps, tasks.forecast),
    *(tasks.running_sum, tasks.marked_sum, tasks.lookup, tasks.parity, tasks.brackets),
    *(tasks.largest, tasks.neighbors, tasks.crowded, tasks.shifted, tasks.turned),
    *(tasks.compared, tasks.inverted, tasks.edges, tasks.blurred, tasks.pixels),
]


def member_named(name: str) -> Member:
    return next(member for member in members() if member.name == name)


def test_members_have_names_a_truth_or_a_measurement_and_verdicts_that_exist() -> None:
    assert len({member.name for member in members()}) == len(members())
    counts = Counter(member.kind for member in members())
    assert counts["degraded"] >= 40 and counts["healthy"] >= 60
    assert counts["slow or post-norm"] >= 20
    assert counts["output layer"] + counts["initialization"] + counts["dead units"] >= 30
    verdicts = {name for name, _ in RULES}
    for member in members():
        assert bool(member.cured) == bool(member.truths), member.name
        assert set(member.truths) <= verdicts
        assert (member.shortcuts is not None) == (member.kind == "degraded")


def test_halves_are_even_and_as_recorded() -> None:
    for kind in KINDS:
        counts = Counter(member.half for member in members() if member.kind == kind)
        assert abs(counts[HALVES[0]] - counts[HALVES[1]]) <= 1, kind
    recorded = json.loads(members_file.RECORDED_HALVES.read_text())
    assert recorded == {member.name: member.half for member in members()}


@pytest.mark.parametrize("kind", KINDS)
def test_networks_take_their_data(kind: str) -> None:
    """A problem checks shapes, classes and a finite loss of guessing when it is made."""
    member = next(member for member in members() if member.kind == kind)
    member.problem()
    if member.cured:
        member.twin(**member.cured).problem()


@pytest.mark.slow
def test_all_networks_and_their_twins_take_their_data() -> None:
    for member in members():
        member.problem()
        twins: list[dict[str, Any]] = [member.cured] if member.cured else []
        twins += [{"build": build} for build in (member.shallow, member.shortcuts) if build]
        for changes in twins:
            member.twin(**changes).problem()


@pytest.mark.parametrize("make_task", TASKS, ids=lambda make_task: make_task.__name__)
def test_a_task_is_finite_and_the_same_at_each_call(make_task: tasks.MakeTask) -> None:
    x, y = make_task()
    again_x, again_y = make_task()
    assert torch.equal(x, again_x) and torch.equal(y, again_y)
    assert len(x) == len(y) >= 500
    assert bool(torch.isfinite(x.float()).all()) and bool(torch.isfinite(y.float()).all())
    if not y.is_floating_point():
        assert float(y.bincount().max()) < 0.75 * len(y)  # no class is nearly everything


def test_faults_of_tasks_are_as_described() -> None:
    x, y = tasks.clusters()
    assert torch.equal(tasks.shuffled(tasks.clusters)[1].bincount(), y.bincount())
    assert tasks.with_gaps(tasks.clusters)[0].isnan().sum() == 55
    assert float(tasks.erased(tasks.clusters)[0].std(0).max()) < 1e-6
    assert torch.equal(tasks.scaled(tasks.clusters, factor=2.0, offset=1.0)[0], 2 * x + 1)
    sums = tasks.reversed_rows(tasks.clusters)[0].sum(1)
    assert bool((sums.diff() >= 0).all())


def test_a_twin_differs_in_what_was_cured_only() -> None:
    member = member_named("tower-clusters-softmax")
    twin = member.twin(**member.cured)
    x = member.data()[0][:3]
    outputs = [problem.problem().net(0)(x) for problem in (member, twin)]
    assert torch.allclose(outputs[0], outputs[1].softmax(1))


GOOD, BAD = [0.01, 0.02, 0.01], [0.9, 0.91, 0.92]


@pytest.mark.parametrize(
    ("ill", "cured", "by_rate", "names"),
    [
        (BAD, GOOD, {}, ("dead units",)),
        (BAD, [0.6, 0.6, 0.6], {}, ()),  # the twin does not learn
        (BAD, [0.49, 0.5, 0.5], {}, ("dead units",)),
        ([0.05, 0.06, 0.05], GOOD, {}, ()),  # a difference below the margin
        ([0.02, 0.9, 1.0], GOOD, {}, ()),  # not certain
        (BAD, [0.0, 0.0, 0.0], {0.1: 0.9, 0.4: 0.05}, ("dead units", "bad learning rate")),
        (BAD, [0.0, 0.0, 0.0], {0.1: 0.9, 0.4: 0.051}, ("dead units",)),
    ],
)
def test_the_rule_of_faults_by_construction(
    ill: list[float], cured: list[float], by_rate: dict[float, float], names: tuple[str, ...]
) -> None:
    measured = {"scores": {"ill": ill, "cured": cured}, "by_rate": by_rate}
    assert settle_fault(("dead units",), measured) == names


@pytest.mark.parametrize(
    ("scores", "held_out", "names"),
    [
        ({"given": GOOD}, 0.1, ("healthy",)),
        ({"given": GOOD}, 0.951, ()),  # nothing carries over
        ({"given": [0.01, 0.06, 0.01]}, 0.1, ()),  # no twin shows that it is good enough
        (
            {"given": BAD, "shallow": GOOD, "shortcuts": GOOD},
            0.9,
            ("degradation",),
        ),
        (
            {"given": [1.0, 1.0, 1.01], "shallow": GOOD, "shortcuts": GOOD},
            1.0,
            ("degradation", "vanishing or exploding signal"),
        ),
        ({"given": BAD, "shallow": GOOD, "shortcuts": BAD}, 0.9, ()),  # shortcuts do not cure it
        (
            {"given": BAD, "deep": GOOD, "shallow": GOOD, "long shallow": GOOD},
            0.1,
            ("bad learning rate",),
        ),
        (
            {"given": [0.3, 0.31, 0.3], "shallow": BAD, "long shallow": [0.3, 0.3, 0.31]},
            0.4,
            ("healthy",),
        ),
        (
            {"given": [0.3, 0.31, 0.3], "shallow": BAD, "long shallow": [0.2, 0.4, 0.1]},
            0.4,
            (),
        ),
    ],
)
def test_the_rule_of_measured_truths(
    scores: dict[str, list[float]], held_out: float, names: tuple[str, ...]
) -> None:
    measured = {"scores": scores, "held_out": [held_out], "held_at_half": [held_out]}
    assert settle(measured) == names


def test_a_network_that_overfits_is_not_called_healthy() -> None:
    measured = {"scores": {"given": GOOD}, "held_out": [0.5], "held_at_half": [0.44]}
    assert settle(measured) == ()
    assert settle(measured | {"held_at_half": [0.46]}) == ("healthy",)


def test_committed_truths_belong_to_members_and_follow_the_rules() -> None:
    lines = run.read_lines(SECOND.truths)
    assert len({line["name"] for line in lines}) == len(lines)
    for line in lines:
        member, measured = member_named(line["name"]), line["measured"]
        names = settle_fault(member.truths, measured) if member.cured else settle(measured)
        assert tuple(line["names"]) == names, member.name


def test_members_without_a_settled_truth_are_not_diagnosed(tmp_path: Path) -> None:
    unsettled = {line["name"] for line in run.read_lines(SECOND.truths) if not line["names"]}
    chosen = [member for member in members() if member.name in unsettled][:2]
    path = tmp_path / "verdicts.jsonl"
    run.measure_verdicts(SECOND, chosen, jobs=1, say=lambda text: None, path=path, steps=4)
    assert not run.read_lines(path)


def test_truths_of_both_sorts_are_recorded_with_their_scores(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    chosen = [member_named("tower-spirals-cold-softmax"), member_named("spirals-residual-deep26")]
    run.measure_truths(SECOND, chosen, jobs=1, say=lambda text: None, path=path, steps=5, seeds=2)
    fault, deep = (line["measured"]["scores"] for line in run.read_lines(path))
    assert set(fault) == {"ill", "cured"}
    assert {"given", "shallow"} <= set(deep)


def test_the_rules_give_the_committed_verdicts_from_their_scores() -> None:
    lines = run.read_lines(SECOND.verdicts)
    assert len(lines) > 120
    for line in lines:
        assert decide(Scores(**line["evidence"])).name == line["verdict"], line["name"]


LABELS = {
    "healthy": "healthy",
    "slow or post-norm": "deep, with shortcuts",
    "degraded": "deep, without shortcuts",
    "initialization": "initialization",
    "dead units": "dead units",
    "output layer": "output layer",
    "learning rate": "learning rate",
    "data": "data",
    "wiring": "unregistered parameters",
}


def test_the_page_shows_the_rates_of_the_committed_verdicts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    result = score(run.judged(SECOND, "held-out"))
    rates = {
        "false alarms among the healthy": result.false_alarms,
        "healthy networks, left undecided": result.healthy_undecided,
        "ill networks, missed or misnamed": result.ill_wrong,
        "ill networks, left undecided": result.ill_undecided,
    }
    rates |= {LABELS[kind]: rate for kind, rate in result.by_kind.items()}
    for label, rate in rates.items():
        percent = f"{rate.pct:.0f} [{rate.low_pct:.0f}, {rate.high_pct:.0f}]"
        assert f"| {label} | {rate.hits} of {rate.n} | {percent} |" in page
    assert f"| **{result.right.hits} of {result.right.n}** |" in page
    for healthy, _, ill in result.rivals.values():
        assert f"| {healthy.hits} of {healthy.n} | {ill.hits} of {ill.n} |" in page
    assert f"took {result.seconds_max:.0f} seconds" in page
