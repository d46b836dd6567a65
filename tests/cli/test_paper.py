"""`reslearn paper` and `reslearn demo` as a user calls them; one small study is trained for real."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.paper import budget_of, claims_inventory, inventory, load_exhibit
from reslearn.paper.stages import jobs_of
from reslearn.runs import RunError, RunFolder

SMOKE = ("paper", "claims", "--data", "digits", "--budget", "smoke", "--only", "C5,C12", "--json")


def reslearn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reslearn", *arguments], capture_output=True, text=True, check=False
    )


def test_everything_of_the_paper_is_listed_with_what_it_needs_and_what_is_committed(
    tmp_path: Path,
) -> None:
    shown = CliRunner().invoke(app, ["paper", "list", "--results", str(tmp_path)]).stdout
    assert re.findall(r"^  (C\d+) ", shown, flags=re.MULTILINE) == [
        f"C{number}" for number in range(1, 15)
    ]
    told = json.loads(
        CliRunner().invoke(app, ["paper", "list", "--json", "--results", str(tmp_path)]).stdout
    )
    items = {item["name"]: item for item in told["exhibits"]}
    assert items["table1"]["num_runs"] == 0 and items["table1"]["hours_two_cores"] is None
    assert items["table6"]["num_runs"] == 5 * 5
    assert items["table2"]["estimated"] and not items["table6"]["estimated"]
    assert f" ~{items['table2']['hours_one_gpu']:.0f} " in shown
    assert items["table6"]["committed"]["full"] == [0, 25]


def test_a_committed_run_is_counted(tmp_path: Path) -> None:
    module = load_exhibit("fig1")
    job = jobs_of(
        module.conditions(budget_of(module, "short", "cifar10")),
        budget_of(module, "short", "cifar10"),
        tmp_path,
    )[0]
    RunFolder.create(job.folder, job.recipe.to_dict(), {})
    assert {item.name: item.committed for item in inventory(tmp_path)}["fig1"]["short"] == (0, 6)
    RunFolder(job.folder).finish({"seconds": 1.0})
    assert {item.name: item.committed for item in inventory(tmp_path)}["fig1"]["short"] == (1, 6)


def test_the_committed_runs_of_figure_1_are_found_by_both_budgets() -> None:
    found = {
        item.name: item.committed for item in inventory(Path(__file__).parents[2] / "results")
    }["fig1"]
    assert (found["short"], found["medium"]) == ((6, 6), (6, 6))


def test_the_claims_say_what_they_take_and_what_was_judged(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    claims = [{"outcome": "shown"}, {"outcome": "not shown"}, {"outcome": "shown"}]
    (tmp_path / "demo" / "claims.json").write_text(json.dumps({"data": "digits", "claims": claims}))
    item = claims_inventory(tmp_path)
    assert item.committed == {"demo/claims.json": ("digits", 2, 3)}
    assert item.hours_two_cores > item.hours_one_gpu > 1 and item.num_runs > 100
    (tmp_path / "demo" / "claims.json").write_text("[]")
    with pytest.raises(RunError, match="not what `reslearn paper claims` writes"):
        claims_inventory(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "full", "--data", "digits"], "for digits take smoke, short or reslearn demo"),
        (["--seeds", "101"], "seeds from 100 on are those to choose learning rates on"),
        (["--only", "C15"], "no claim 'C15': there are C1, C2"),
        (["--budget", "huge"], "--budget huge: allowed are smoke, short and full"),
        (["--only", ","], "--only ',': names of claims are needed"),
        (["--only", "C1", "--data", "digts"], "did you mean 'digits'?"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    error = (
        CliRunner()
        .invoke(app, ["paper", "claims", "--out", str(tmp_path / "out"), *arguments])
        .exception
    )
    assert isinstance(error, ValueError)
    assert words in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_claims_from_the_command_line_to_the_page_and_again(tmp_path: Path) -> None:
    first = reslearn(*SMOKE, "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert [claim["claim"] for claim in told["claims"]] == ["C5", "C12"]
    assert (
        told["runs"] == 2 * 2 + 2 * 2
    )  # two depths: two learning rates on one seed, then two seeds
    assert {claim["outcome"] for claim in told["claims"]} <= {
        "shown",
        "not shown",
        "undecided",
        "not testable here",
    }
    assert Path(told["page"]).read_text().startswith("<!doctype html>")
    assert (tmp_path / "figures" / "figure-6-residual.png").is_file()
    results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    again = json.loads(reslearn(*SMOKE, "--out", str(tmp_path)).stdout)
    assert again["claims"] == told["claims"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == results


def test_a_study_of_unknown_data_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    out = tmp_path / "out"
    error = (
        CliRunner()
        .invoke(
            app,
            [
                "study",
                "--models",
                "resnet8",
                "--data",
                "digts",
                "--recipe",
                "digits",
                "--out",
                str(out),
            ],
        )
        .exception
    )
    assert isinstance(error, ValueError) and "did you mean 'digits'?" in str(error)
    assert not out.exists()


@pytest.mark.slow
def test_a_study_of_two_recipes_a_depth_has_its_table_though_no_verdict(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("""models = ["resnet8", "resnet14"]
seeds = 1
recipe = "digits"
set = ['schedule.duration="2 steps"', "schedule.kind=constant", "data.train_images=64"]
[vary]
"optimizer.lr" = [0.01, 0.1]
""")
    done = reslearn("study", str(plan), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["table"]["groups"]) == 4
    assert told["verdicts"]["residual"].startswith("runs of resnet")
