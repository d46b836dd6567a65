"""What a diagnosis makes of findings: a proof ends it, and a suspicion comes first."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.diagnose import Diagnosis, NetworkVerdict, diagnose, make_problem
from reslearn.diagnose.answer import answer_lines, further_findings
from reslearn.diagnose.diagnosis_json import diagnosis_json
from reslearn.diagnose.findings import Screening, ScreeningFinding, ordered
from reslearn.diagnose.page import diagnosis_page
from reslearn.diagnose.verdict_rules import VerdictName
from reslearn.report import render_html

torch.manual_seed(0)
PAIR = (torch.randn(200, 6), torch.arange(200) % 4)

LISTED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.hidden = [nn.Linear(8, 8) for _ in range(4)]
        self.classes = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.classes(x)


def data():
    torch.manual_seed(0)
    return torch.randn(200, 6), torch.arange(200) % 4
"""


def finding(level: Any, *causes: VerdictName) -> ScreeningFinding:
    return ScreeningFinding(
        check=f"a {level}",
        level=level,
        causes=causes,
        message=f"This is a {level}.",
        evidence="It has a number.",
    )


NOTE = finding("note")
SUSPICION = finding("suspicion", "dead units")
PROOF = finding("proof", "output layer")
HEALTHY = "Nothing is wrong with this network: it learns its training data."


@pytest.fixture(scope="module")
def proven() -> Diagnosis:
    """A diagnosis that screening ends at once."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Softmax(1))

    lines: list[str] = []
    diagnosis = diagnose(make_problem(build, PAIR), minutes=5, say=lines.append)
    assert len(lines) == 1 and lines[0].startswith(
        "Screening, proof: The network ends in a softmax"
    )
    return diagnosis


def judged(diagnosis: Diagnosis, verdict: VerdictName, *findings: ScreeningFinding) -> Diagnosis:
    """Return the diagnosis with another verdict and other findings."""
    return replace(
        diagnosis,
        verdict=NetworkVerdict(name=verdict, reason="It was measured.", certain=True),
        screening=Screening(findings=ordered(list(findings))),
    )


def test_a_proof_ends_the_diagnosis(proven: Diagnosis) -> None:
    assert proven.verdict.name == "output layer" and proven.verdict.certain
    assert not proven.trials and not proven.interrupted
    assert not proven.variants.notes  # whether it can be traced does not matter
    first, second = answer_lines(proven)
    assert first.startswith("The network ends in a softmax") and "Remove the softmax" in first
    assert second.startswith("output layer: However well the network learns")


@pytest.mark.parametrize(
    ("verdict", "findings", "lines"),
    [
        ("healthy", [NOTE], [HEALTHY, "healthy: It was measured."]),
        (
            "healthy",
            [NOTE, SUSPICION],
            [
                HEALTHY,
                "healthy: It was measured.",
                "Not confirmed: before training, screening suspected: This is a suspicion. It has "
                "a number.",
            ],
        ),
        (
            "dead units",
            [NOTE, SUSPICION],
            ["This is a suspicion.", "dead units: It was measured.", "It has a number."],
        ),
        (
            "undecided",
            [SUSPICION],
            [
                "Leading suspicion: This is a suspicion.",
                "It has a number.",
                "undecided: It was measured.",
                "To settle it: diagnose(problem, minutes=20)",
            ],
        ),
        ("output layer", [PROOF], ["This is a proof.", "output layer: It has a number."]),
        ("data fault", [finding("proof", "data fault")], ["data fault: It was measured."]),
    ],
)
def test_the_lines_of_the_answer(
    proven: Diagnosis,
    verdict: VerdictName,
    findings: list[ScreeningFinding],
    lines: list[str],
) -> None:
    assert answer_lines(judged(proven, verdict, *findings)) == lines


def test_the_most_certain_finding_leads(proven: Diagnosis) -> None:
    diagnosis = judged(proven, "undecided", NOTE, SUSPICION)
    assert diagnosis.screening.leading is SUSPICION and diagnosis.screening.proof is None
    assert further_findings(diagnosis) == [NOTE]
    assert Screening(findings=ordered([SUSPICION, NOTE, PROOF])).leading is PROOF


def test_json_has_the_findings(proven: Diagnosis) -> None:
    values = json.loads(json.dumps(diagnosis_json(proven), allow_nan=False))
    assert values["verdict"] == "output layer" and values["trials"] == 0
    assert values["answer"] == answer_lines(proven)
    (entry,) = values["findings"]
    assert entry["check"] == "output layer" and entry["level"] == "proof"
    assert entry["causes"] == ["output layer"] and entry["attribute"] == "3"


def test_the_page_shows_suspicions_first_and_notes_after_the_verdict(proven: Diagnosis) -> None:
    for findings, titles in (
        ([SUSPICION], ["Screening", "Verdict"]),
        ([NOTE], ["Verdict", "Screening"]),
        ([], ["Verdict", "Screening"]),
    ):
        diagnosis = judged(proven, "undecided", *findings)
        page = diagnosis_page(diagnosis, command=["reslearn"])
        is_in_subtitle = page.subtitle == "Leading suspicion: This is a suspicion."
        assert is_in_subtitle == (findings == [SUSPICION])
        assert [section.title for section in page.sections[:2]] == titles
        html = render_html(page)
        assert ("This is a suspicion. It has a number." in html) == (findings == [SUSPICION])
        assert ("No fault is visible before training." in html) == (not findings)


def test_the_command_names_the_attribute_and_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_trials: Callable[..., None]
) -> None:
    few_trials()
    monkeypatch.chdir(tmp_path)
    Path("listed_net.py").write_text(LISTED)
    command = "diagnose listed_net.py:Net --data listed_net.py:data --patch --steps 4 --jobs 1"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    line = (
        LISTED.splitlines().index("        self.hidden = [nn.Linear(8, 8) for _ in range(4)]") + 1
    )
    first = result.stdout.splitlines()[0]
    assert first.startswith("self.hidden of Net is a list, so torch does not know its layers")
    assert f"self.hidden = nn.ModuleList([...]) (listed_net.py:{line})." in first
    assert "untrained parameters: 8 tensors with 288 values" in result.stdout
    page = Path("diagnosis/listed_net-Net/report.html").read_text()
    assert page.index("self.hidden of Net is a list") < page.rindex(">Verdict<")


def test_an_undecided_diagnosis_names_its_leading_suspicion(
    few_trials: Callable[..., None],
) -> None:
    few_trials()

    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 4))
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
        return net

    diagnosis = diagnose(make_problem(build, PAIR), minutes=5, steps=4)
    first = answer_lines(diagnosis)[0]
    assert "The units of layer 0 start equal and stay equal" in first
    assert re.search(r"test_screening_answer\.py:\d+", first)
