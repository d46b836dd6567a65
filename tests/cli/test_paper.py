"""`reslearn paper` as a user calls it. The slow tests train small networks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.cli.paper import EXHIBITS
from reslearn.paper import (
    claims_inventory,
    exhibit_budget,
    first_specs,
    inventory,
    jobs_of,
    load_exhibit,
)
from reslearn.runs import RunError, RunFolder

SMOKE = ("paper", "claims", "--data", "digits", "--budget", "smoke", "--only", "C5,C12", "--json")


def reslearn(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reslearn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_list_shows_every_experiment_with_its_cost_and_committed_runs(tmp_path: Path) -> None:
    options = ["paper", "list", "--results", str(tmp_path)]
    text = CliRunner().invoke(app, options).stdout
    claims = re.findall(r"^  (C\d+) ", text, flags=re.MULTILINE)
    assert claims == [f"C{number}" for number in range(1, 15)]
    record = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    items = {item["name"]: item for item in record["exhibits"]}
    assert items["table1"]["num_runs"] == 0 and items["table1"]["hours_two_cores"] is None
    assert items["table6"]["num_runs"] == 5 * 5
    assert items["table2"]["estimated"] and not items["table6"]["estimated"]
    assert f" ~{items['table2']['hours_one_gpu']:.0f} " in text
    assert items["table6"]["committed"]["full"] == [0, 25]


def committed(results: Path) -> dict[str, tuple[int, int]]:
    return {item.name: item.committed for item in inventory(results)}["fig1"]


def test_a_complete_run_is_counted(tmp_path: Path) -> None:
    experiment = load_exhibit("fig1").EXPERIMENT
    budget = exhibit_budget(experiment, "short", "cifar10")
    job = jobs_of(first_specs(experiment, budget), budget, tmp_path)[0]
    run = RunFolder.create(job.folder, job.recipe.to_dict(), {})
    assert committed(tmp_path)["short"] == (0, 6)
    run.finish({"seconds": 1.0})
    assert committed(tmp_path)["short"] == (1, 6)


def test_the_committed_runs_of_figure_1_belong_to_both_budgets() -> None:
    counts = committed(Path(__file__).parents[2] / "results")
    assert (counts["short"], counts["medium"]) == ((6, 6), (6, 6))


def test_the_claims_have_a_cost_and_committed_verdicts(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    claims = [{"outcome": "shown"}, {"outcome": "not shown"}, {"outcome": "shown"}]
    (tmp_path / "demo" / "claims.json").write_text(json.dumps({"data": "digits", "claims": claims}))
    item = claims_inventory(tmp_path)
    assert item.committed == {"demo/claims.json": ("digits", 2, 3)}
    assert item.hours_two_cores > item.hours_one_gpu > 1 and item.num_runs > 100
    (tmp_path / "demo" / "claims.json").write_text("[]")
    with pytest.raises(RunError, match="was not written by `reslearn paper claims`"):
        claims_inventory(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "full", "--data", "digits"], "for digits take --budget smoke"),
        (["--seeds", "101"], "seeds from 100 on are reserved for choosing learning rates"),
        (["--only", "C15"], "there is no claim 'C15'; allowed are C1, C2"),
        (["--budget", "huge"], "--budget huge: allowed are smoke, short and full"),
        (["--only", ","], "--only ',': names of claims are needed"),
        (["--only", "C1", "--data", "digts"], "did you mean 'digits'?"),
    ],
)
def test_bad_input_is_refused_before_any_training(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    error = CliRunner().invoke(app, ["paper", "claims", "--out", str(out), *arguments]).exception
    assert isinstance(error, ValueError) and words in str(error)
    assert not out.exists()


@pytest.mark.slow
def test_claims_from_the_command_line_to_the_page_and_again(tmp_path: Path) -> None:
    first = reslearn(*SMOKE, "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert [claim["claim"] for claim in record["claims"]] == ["C5", "C12"]
    # Two depths: two learning rates on one seed, then two seeds.
    assert record["runs"] == 2 * 2 + 2 * 2
    assert record["claims"][0]["outcome"] in ("shown", "not shown", "undecided")
    assert record["claims"][1]["outcome"] == "shown"
    assert Path(record["page"]).read_text().startswith("<!doctype html>")
    assert (tmp_path / "figures" / "figure-6-residual.png").is_file()
    results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    again = json.loads(reslearn(*SMOKE, "--out", str(tmp_path)).stdout)
    assert again["claims"] == record["claims"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == results


def test_a_study_of_unknown_data_is_refused_before_any_training(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--models", "resnet8", "--data", "digts", "--recipe", "digits", "--out", str(out)]
    error = CliRunner().invoke(app, ["study", *options]).exception
    assert isinstance(error, ValueError) and "did you mean 'digits'?" in str(error)
    assert not out.exists()


@pytest.mark.slow
def test_a_study_of_two_recipes_per_depth_has_a_table_but_no_verdict(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("""models = ["resnet8", "resnet14"]
seeds = 1
recipe = "digits"
set = ['schedule.duration="2 steps"', "schedule.kind=constant", "data.train_images=64"]
[vary]
"optimizer.lr" = [0.01, 0.1]
""")
    process = reslearn("study", str(plan), "--out", str(tmp_path / "out"), "--json")
    assert process.returncode == 0, process.stderr
    record = json.loads(process.stdout)
    assert len(record["table"]["groups"]) == 4
    assert record["verdicts"]["residual"].startswith("runs of resnet")


@pytest.mark.parametrize("name", EXHIBITS)
def test_help_hides_options_without_effect(name: str) -> None:
    experiment = load_exhibit(name).EXPERIMENT
    is_trained = experiment.data != "none"
    output = CliRunner().invoke(app, ["paper", name, "--help"]).output
    assert ("--seeds <" in output) == (is_trained and not experiment.has_fixed_seeds)
    # The study of the ambiguities has one network.
    has_depths = bool(experiment.depths) and name != "ambiguities"
    assert ("--depths <" in output) == has_depths
    for option in ("--data <", "--budget <", "--jobs <"):
        assert (option in output) == is_trained, option
