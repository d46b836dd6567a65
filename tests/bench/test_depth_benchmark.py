"""The benchmark of diagnoses: networks with known truth, what decides the truth of the others, and how verdicts are counted."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from benchmarks.depth import rivals, run, score, tasks
from benchmarks.depth.members import HALVES, Member, members
from benchmarks.depth.score import Judged
from benchmarks.depth.truth import settle
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.diagnose import RULES, Scores, decide

VERDICTS = {name for name, _ in RULES}


def of(name: str) -> Member:
    return next(one for one in members() if one.name == name)


def test_members_have_names_and_are_dealt_evenly() -> None:
    assert len(members()) >= 60
    assert len({one.name for one in members()}) == len(members())
    for kind in {one.kind for one in members()}:
        dealt = Counter(one.half for one in members() if one.kind == kind)
        assert abs(dealt[HALVES[0]] - dealt[HALVES[1]]) <= 1, kind
    for one in members():
        assert (one.shallow is None) == bool(one.truths) and set(one.truths) <= VERDICTS


@pytest.mark.parametrize("kind", sorted({one.kind for one in members()}))
def test_networks_take_their_data(kind: str) -> None:
    """The problem is checked when it is made: shapes, classes, a loss that is finite for guessing."""
    one = next(one for one in members() if one.kind == kind)
    for build in (one.build, one.shallow or one.build):
        one.problem(build)


def test_a_measured_member_is_deeper_than_its_sibling() -> None:
    for one in members():
        if one.shallow is not None:
            deep, shallow = (
                sum(1 for weight in build().parameters() if weight.ndim > 1)
                for build in (one.build, one.shallow)
            )
            assert deep > shallow, one.name


def test_what_learns_nothing_is_measured_against_the_shallowest() -> None:
    nothing = [1.0, 1.0, 1.01, 1.0, 1.0]
    both = ("degradation", "vanishing or exploding signal")
    assert (
        settle({"deep": nothing, "shallow": nothing, "shallowest": [0.2, 0.21, 0.2, 0.19, 0.2]})
        == both
    )
    assert settle({"deep": nothing, "shallow": nothing, "shallowest": nothing}) == ()
    assert settle({"deep": nothing, "shallow": nothing}) == ()


@pytest.mark.parametrize(
    ("deep", "shallow", "given", "names"),
    [
        ([0.5] * 5, [0.49, 0.5, 0.5, 0.51, 0.5], None, ("healthy",)),
        ([0.5, 0.52, 0.51, 0.5, 0.5], [0.3, 0.31, 0.29, 0.3, 0.3], None, ("degradation",)),
        (
            [1.0, 1.0, 1.0, 1.01, 1.0],
            [0.3, 0.31, 0.29, 0.3, 0.3],
            None,
            ("degradation", "vanishing or exploding signal"),
        ),
        ([0.3, 0.31, 0.29, 0.3, 0.3], [0.5, 0.52, 0.51, 0.5, 0.5], None, ("healthy",)),
        ([0.5, 0.9, 0.2, 0.6, 0.3], [0.45, 0.5, 0.4, 0.3, 0.4], None, ()),
        ([0.5] * 5, [0.5] * 5, [0.9, 0.91, 0.9, 0.9, 0.9], ("bad learning rate",)),
        ([0.5, 0.52, 0.51, 0.5, 0.5], [0.3, 0.31, 0.29, 0.3, 0.3], [0.9] * 5, ("degradation",)),
        ([0.5] * 5, [0.5] * 5, [0.5, 0.5, 0.6, 0.5, 0.6], ()),
    ],
)
def test_the_rule_that_settles_a_truth(
    deep: list[float], shallow: list[float], given: list[float] | None, names: tuple[str, ...]
) -> None:
    assert (
        settle({"deep": deep, "shallow": shallow, **({} if given is None else {"given": given})})
        == names
    )


def test_truths_that_are_committed_are_those_of_the_members_and_follow_the_rule() -> None:
    known = {one.name: one for one in members()}
    for line in run.lines(run.TRUTHS):
        one = known[line["name"]]
        if line["measured"]:
            assert tuple(line["names"]) == settle(line["measured"]["scores"]), one.name
        else:
            assert tuple(line["names"]) == one.truths


def judged(truth: str, verdict: str, alarmed: bool = False) -> Judged:
    return Judged(
        name=f"{truth}-{verdict}",
        truths=(truth,),
        verdict=verdict,
        seconds=3.0,
        alarms=dict.fromkeys(rivals.NAMES, alarmed),
    )


def test_the_rules_say_of_the_committed_evidence_what_is_committed() -> None:
    """A rule that changes must be measured anew, or change none of these."""
    lines = [json.loads(line) for line in run.VERDICTS.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 170
    assert [
        line["name"] for line in lines if decide(Scores(**line["evidence"])).name != line["verdict"]
    ] == []


def test_rates_and_their_intervals() -> None:
    healthy = [judged("healthy", "healthy")] * 9 + [judged("healthy", "degradation", alarmed=True)]
    degraded = [judged("degradation", "degradation", alarmed=True)] * 3 + [
        judged("degradation", "undecided")
    ]
    found = score.score([*healthy, *degraded, judged("healthy", "undecided")])
    assert found.confusion == {
        "healthy": {"healthy": 9, "degradation": 1, "undecided": 1},
        "degradation": {"degradation": 3, "undecided": 1},
    }
    assert (found.false_alarms.hits, found.false_alarms.n) == (1, 11)
    assert (
        found.healthy_undecided.hits,
        found.degradations_missed.hits,
        found.degradations_missed.n,
    ) == (1, 1, 4)
    assert found.rivals["dead units"][0].hits == 1 and found.rivals["dead units"][1].hits == 3
    assert "degradations missed             1 of 4: 25 %" in score.table(
        found
    ) and "wrong: degradation-undecided" in score.table(found)
    none_of_72 = score.rate(0, 72)
    assert none_of_72.high_pct == pytest.approx(
        100 * (1 - 0.025 ** (1 / 72))
    )  # the closed form for no hits
    with pytest.raises(ValueError, match="no member has both"):
        score.score([])


def test_tasks_are_what_they_say() -> None:
    for make in (
        tasks.digits,
        tasks.breast,
        tasks.wine,
        tasks.moons,
        tasks.sines,
        tasks.waves,
        tasks.tokens,
        tasks.scans,
    ):
        x, y = make()
        assert torch.equal(x, make()[0]) and len(x) == len(y) and bool(torch.isfinite(x).all()), (
            make
        )
    x, y = tasks.digits()
    labels = tasks.shuffled(tasks.digits)[1]
    assert torch.equal(labels.bincount(), y.bincount()) and not torch.equal(labels, y)
    assert (
        0.2 < float((tasks.mislabelled(tasks.digits, share=0.3)[1] != y).float().mean()) < 0.3
    )  # a tenth is right by chance
    assert math.isclose(
        float(tasks.unscaled(tasks.digits, offset=300)[0].mean()),
        float(x.mean()) + 300,
        rel_tol=1e-3,
    )


def test_rivals_see_what_they_watch_for() -> None:
    assert rivals.alarms(of("mlp-digits-dead").problem(), steps=12)["dead units"]
    assert rivals.alarms(of("mlp-digits-lr-too-high").problem(), steps=12)["update ratio"]
    calm = rivals.alarms(of("mlp3-digits").problem(), steps=12)
    assert not calm["gradient ratio"] and not calm["dead units"]


def test_a_benchmark_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [of("mlp-wine-constant"), of("mlp3-wine")]
    place, said = tmp_path / "verdicts.jsonl", list[str]()
    run.measure_verdicts(chosen[:1], jobs=1, say=said.append, place=place, steps=4)
    run.measure_verdicts(chosen, jobs=1, say=said.append, place=place, steps=4)
    assert said == ["1/1 mlp-wine-constant: data fault", said[1]] and said[1].startswith(
        "1/1 mlp3-wine: "
    )
    with place.open("a") as file:
        file.write('{"name": "mlp6-wi')  # killed while writing
    assert [line["name"] for line in run.lines(place)] == ["mlp-wine-constant", "mlp3-wine"]
    monkeypatch.setattr(run, "rules", lambda: "other rules")
    run.measure_verdicts(chosen[:1], jobs=1, say=said.append, place=place, steps=4)
    assert [line["rules"] for line in run.lines(place)] == ["other rules"]
    measured = tmp_path / "truth.jsonl"
    run.measure_truths([of("mlp3-wine")], jobs=1, say=said.append, place=measured, steps=6, seeds=2)
    assert set(json.loads(measured.read_text())["measured"]["scores"]) >= {"deep", "shallow"}


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["--half", "neither"], "--half neither: allowed are tuning, held-out, both"),
        (["--only", "vgg*"], "no network of the half held-out is called so"),
    ],
)
def test_the_command_refuses_what_is_not_there(arguments: list[str], tells: str) -> None:
    result = CliRunner().invoke(app, ["bench", "diagnose", *arguments])
    assert result.exit_code != 0 and tells in str(result.exception)
