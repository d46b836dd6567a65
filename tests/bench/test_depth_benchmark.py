"""The benchmark of diagnoses: networks with known truths, how truths are settled, and scoring."""

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
from benchmarks.generations import FIRST
from torch import nn
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.diagnose import RULES, Scores, decide, screen

VERDICTS = {name for name, _ in RULES}
KINDS = sorted({member.kind for member in members()})


def member_named(name: str) -> Member:
    return next(member for member in members() if member.name == name)


def test_members_have_names_and_are_split_evenly() -> None:
    assert len(members()) >= 60
    assert len({member.name for member in members()}) == len(members())
    for kind in KINDS:
        counts = Counter(member.half for member in members() if member.kind == kind)
        assert abs(counts[HALVES[0]] - counts[HALVES[1]]) <= 1, kind
    for member in members():
        assert (member.shallow is None) == bool(member.truths)
        assert set(member.truths) <= VERDICTS


@pytest.mark.parametrize("kind", KINDS)
def test_networks_take_their_data(kind: str) -> None:
    """A problem checks shapes, classes and a finite loss of guessing when it is made."""
    member = next(member for member in members() if member.kind == kind)
    for build in (member.build, member.shallow or member.build):
        member.problem(build)


def test_a_measured_member_is_deeper_than_its_shallow_network() -> None:
    def num_weights(net: nn.Module) -> int:
        return sum(weight.ndim > 1 for weight in net.parameters())

    for member in members():
        if member.shallow is not None:
            assert num_weights(member.build()) > num_weights(member.shallow()), member.name


def test_a_network_that_learns_nothing_is_measured_against_the_shallowest() -> None:
    nothing = [1.0, 1.0, 1.01, 1.0, 1.0]
    learned = [0.2, 0.21, 0.2, 0.19, 0.2]
    both = ("degradation", "vanishing or exploding signal")
    assert settle({"deep": nothing, "shallow": nothing, "shallowest": learned}) == both
    assert settle({"deep": nothing, "shallow": nothing, "shallowest": nothing}) == ()
    assert settle({"deep": nothing, "shallow": nothing}) == ()


NEAR_HALF = [0.5, 0.52, 0.51, 0.5, 0.5]
NEAR_THIRD = [0.3, 0.31, 0.29, 0.3, 0.3]


@pytest.mark.parametrize(
    ("scores", "names"),
    [
        ({"deep": [0.5] * 5, "shallow": [0.49, 0.5, 0.5, 0.51, 0.5]}, ("healthy",)),
        ({"deep": NEAR_HALF, "shallow": NEAR_THIRD}, ("degradation",)),
        (
            {"deep": [1.0, 1.0, 1.0, 1.01, 1.0], "shallow": NEAR_THIRD},
            ("degradation", "vanishing or exploding signal"),
        ),
        ({"deep": NEAR_THIRD, "shallow": NEAR_HALF}, ("healthy",)),
        ({"deep": [0.5, 0.9, 0.2, 0.6, 0.3], "shallow": [0.45, 0.5, 0.4, 0.3, 0.4]}, ()),
        (
            {"deep": [0.5] * 5, "shallow": [0.5] * 5, "given": [0.9, 0.91, 0.9, 0.9, 0.9]},
            ("bad learning rate",),
        ),
        ({"deep": NEAR_HALF, "shallow": NEAR_THIRD, "given": [0.9] * 5}, ("degradation",)),
        ({"deep": [0.5] * 5, "shallow": [0.5] * 5, "given": [0.5, 0.5, 0.6, 0.5, 0.6]}, ()),
    ],
)
def test_the_rule_that_settles_a_truth(
    scores: dict[str, list[float]], names: tuple[str, ...]
) -> None:
    assert settle(scores) == names


def test_committed_truths_belong_to_members_and_follow_the_rule() -> None:
    by_name = {member.name: member for member in members()}
    for line in run.read_lines(FIRST.truths):
        member = by_name[line["name"]]
        names = settle(line["measured"]["scores"]) if line["measured"] else member.truths
        assert tuple(line["names"]) == names, member.name


def judged(truth: str, verdict: str, alarmed: bool = False) -> Judged:
    return Judged(
        name=f"{truth}-{verdict}",
        kind=f"{truth} networks",
        truths=(truth,),
        verdict=verdict,
        seconds=3.0,
        alarms=dict.fromkeys(rivals.NAMES, alarmed),
    )


def test_rules_change_few_of_the_committed_verdicts_and_none_for_the_worse() -> None:
    """The rules of 2026-11-25 wrote the verdicts."""
    lines = run.read_lines(FIRST.verdicts)
    truths = {line["name"]: line["names"] for line in run.read_lines(FIRST.truths)}
    truths |= {member.name: member.truths for member in members() if member.truths}
    assert len(lines) > 170
    changed = {}
    for line in lines:
        name = decide(Scores(**line["evidence"])).name
        if name != line["verdict"]:
            changed[line["name"]] = name
            assert name in ("undecided", *truths[line["name"]]), line["name"]
    assert changed == {
        "conv2d-too-small": "undecided",
        "mlp-digits-dropout": "undecided",
        "mlp24-digits-wide": "bad learning rate",
        "conv2d-12": "bad learning rate",
    }


def test_rates_and_their_intervals() -> None:
    healthy = [judged("healthy", "healthy")] * 9
    healthy += [judged("healthy", "degradation", alarmed=True), judged("healthy", "undecided")]
    degraded = [judged("degradation", "degradation", alarmed=True)] * 3
    degraded.append(judged("degradation", "undecided"))
    result = score.score([*healthy, *degraded])
    assert result.confusion == {
        "healthy": {"healthy": 9, "degradation": 1, "undecided": 1},
        "degradation": {"degradation": 3, "undecided": 1},
    }
    assert (result.false_alarms.hits, result.false_alarms.n) == (1, 11)
    assert result.healthy_undecided.hits == 1
    assert (result.degradations_missed.hits, result.degradations_missed.n) == (1, 4)
    assert (result.ill_wrong.hits, result.ill_undecided.hits, result.undecided.hits) == (0, 1, 2)
    assert result.by_kind["degradation networks"].hits == 3
    assert [rate.hits for rate in result.rivals["dead units"]] == [1, 3, 3]
    text = score.table(result)
    assert "degradations missed             1 of 4: 25 %" in text
    assert "wrong: degradation-undecided" in text
    none_of_72 = 100 * (1 - 0.025 ** (1 / 72))  # the closed form for no hits
    assert score.rate(0, 72).high_pct == pytest.approx(none_of_72)
    with pytest.raises(ValueError, match="no member has both"):
        score.score([])


def test_an_ill_member_is_wrong_if_it_is_called_healthy_or_by_another_name() -> None:
    verdicts = ("dead units", "healthy", "data fault", "undecided", "refused")
    result = score.score([judged("dead units", verdict) for verdict in verdicts])
    assert (result.ill_wrong.hits, result.ill_wrong.n) == (3, 5)
    assert (result.ill_undecided.hits, result.false_alarms.n) == (1, 0)


@pytest.mark.parametrize(
    "make_task",
    [
        tasks.digits,
        tasks.breast,
        tasks.wine,
        tasks.moons,
        tasks.sines,
        tasks.waves,
        tasks.tokens,
        tasks.scans,
    ],
)
def test_a_task_is_finite_and_the_same_at_each_call(make_task: tasks.MakeTask) -> None:
    x, y = make_task()
    assert torch.equal(x, make_task()[0]) and len(x) == len(y)
    assert bool(torch.isfinite(x).all())


def test_faults_of_tasks_are_as_described() -> None:
    x, y = tasks.digits()
    labels = tasks.shuffled(tasks.digits)[1]
    assert torch.equal(labels.bincount(), y.bincount()) and not torch.equal(labels, y)
    changed = tasks.mislabeled(tasks.digits, share=0.3)[1] != y
    assert 0.2 < float(changed.float().mean()) < 0.3  # a tenth is right by chance
    shifted = float(tasks.unscaled(tasks.digits, offset=300)[0].mean())
    assert math.isclose(shifted, float(x.mean()) + 300, rel_tol=1e-3)


def test_rivals_detect_what_they_watch() -> None:
    assert rivals.alarms(member_named("mlp-digits-dead").problem(), steps=12)["dead units"]
    high = member_named("mlp-digits-lr-too-high").problem()
    assert rivals.alarms(high, steps=12)["update ratio"]
    healthy = rivals.alarms(member_named("mlp3-digits").problem(), steps=12)
    assert not healthy["gradient ratio"] and not healthy["dead units"]


def test_a_stopped_benchmark_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [member_named("mlp-wine-constant"), member_named("mlp3-wine")]
    path, said = tmp_path / "verdicts.jsonl", list[str]()
    run.measure_verdicts(FIRST, chosen[:1], jobs=1, say=said.append, path=path, steps=4)
    run.measure_verdicts(FIRST, chosen, jobs=1, say=said.append, path=path, steps=4)
    assert said[0] == "1/1 mlp-wine-constant: data fault"
    assert len(said) == 2 and said[1].startswith("1/1 mlp3-wine: ")
    with path.open("a") as file:
        file.write('{"name": "mlp6-wi')  # killed while writing
    assert [line["name"] for line in run.read_lines(path)] == ["mlp-wine-constant", "mlp3-wine"]
    monkeypatch.setattr(run, "rules", lambda: "other rules")
    run.measure_verdicts(FIRST, chosen[:1], jobs=1, say=said.append, path=path, steps=4)
    lines = {line["name"]: line["rules"] for line in run.read_lines(path)}
    assert lines.pop("mlp-wine-constant") == "other rules", "it is measured again"
    assert list(lines) == ["mlp3-wine"], "other networks keep their verdicts"


def test_a_measured_truth_is_recorded_with_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    chosen = [member_named("mlp3-wine")]
    run.measure_truths(FIRST, chosen, jobs=1, say=lambda text: None, path=path, steps=6, seeds=2)
    assert set(json.loads(path.read_text())["measured"]["scores"]) >= {"deep", "shallow"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--half", "neither"], "--half is neither: allowed are tuning, held-out, both"),
        (["--members", "vgg*"], "--members vgg* matches no network of the half held-out"),
        (["--generation", "3"], "--generation is 3: allowed are 1, 2"),
    ],
)
def test_the_command_refuses_an_unknown_half_or_network(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "diagnose", *arguments])
    assert result.exit_code != 0 and message in str(result.exception)


@pytest.mark.slow
def test_screening_suspects_no_healthy_member() -> None:
    """A suspicion on a healthy network is the worst fault of a screening."""
    truths = {line["name"]: line["names"] for line in run.read_lines(FIRST.truths)}
    healthy = [member for member in members() if truths.get(member.name) == ["healthy"]]
    assert len(healthy) == 80
    for member in healthy:
        screening = screen(member.problem())
        assert not screening.findings and not screening.failures, member.name
