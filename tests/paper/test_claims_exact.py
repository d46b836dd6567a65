"""C3 and C12 train nothing: their verdicts are exact, and turn where the code is made wrong."""

from pathlib import Path

import pytest
from torch import nn

from reslearn import models
from reslearn.paper.budgets import demo
from reslearn.paper.claim import Runs
from reslearn.paper.claims import c03, c12


@pytest.fixture
def evidence(tmp_path: Path) -> Runs:
    return Runs(budget=demo(), runs={}, folder=tmp_path, fit=lambda *_, **__: [])


def test_c3_holds_in_every_bit(evidence: Runs) -> None:
    finding = c03.judge(evidence)
    assert c03.conditions(evidence.budget) == []
    assert finding.outcome == "shown"
    assert finding.numbers["resnet56 A"] == {
        "blocks": 27,
        "sums": 27,
        "identities_due": 25,
        "identities": 25,
    }
    assert finding.numbers["resnet20 C"]["identities_due"] == 0


def test_c3_is_not_shown_where_blocks_are_something_else(
    evidence: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_without_activation(*args: object, **switches: object) -> models.Network:
        net = build(*args, **switches)  # type: ignore[arg-type]
        net.blocks()[-1][1].activation = nn.Identity()
        return net

    build = models.build
    monkeypatch.setattr(models, "build", build_without_activation)
    monkeypatch.setattr(c03, "_NETS", (("resnet20", "A"),))
    assert c03.judge(evidence).outcome == "not shown"


def test_c12_counts_the_papers_nets(evidence: Runs) -> None:
    finding = c12.judge(evidence)
    assert c12.conditions(evidence.budget) == []
    assert finding.outcome == "shown"
    rows = {row["depth"]: row for row in finding.numbers["rows"]}
    assert rows[20]["parameters"] == rows[20]["plain_parameters"] == 269_722
    assert rows[34]["macs"] == rows[34]["plain_macs"]
    assert rows[20]["additions"] == 3 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)


def test_c12_is_not_shown_for_projections(evidence: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_projections(*args: object, **switches: object) -> models.Network:
        return build(
            *args, **({**switches, "shortcut": "B"} if "shortcut" in switches else switches)
        )  # type: ignore[arg-type]

    build = models.build
    monkeypatch.setattr(models, "build", build_projections)
    monkeypatch.setattr(c12, "_SHAPES", {20: (3, 32, 32)})
    finding = c12.judge(evidence)
    assert finding.outcome == "not shown"
    assert "different parameters" in finding.measured
