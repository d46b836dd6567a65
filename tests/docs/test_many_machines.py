"""The commands of docs/many-machines.md: each is parsed; and, slow, typed in the order of the page in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from reslearn import recipes
from reslearn.cli import app

TEXT = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, flags=re.MULTILINE)


def ours(command: str) -> list[str]:
    """The arguments of reslearn in a command; empty where it is none of ours."""
    words = shlex.split(command)
    return words[words.index("reslearn") + 1 :] if "reslearn" in words else []


def test_the_page_has_its_commands() -> None:
    assert [shlex.split(command)[0] for command in COMMANDS] == [
        "torchrun",
        "torchrun",
        "ray",
        "reslearn",
        "ray",
    ]


@pytest.mark.parametrize("command", [command for command in COMMANDS if ours(command)])
def test_its_options_exist(command: str) -> None:
    name, *arguments = ours(command)
    group = typer.main.get_command(app)
    assert group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]


def test_its_recipe_is_one() -> None:
    (line,) = re.findall(r"^resources = \{(.+)\}", TEXT, flags=re.MULTILINE)
    overrides = [f"resources.{'='.join(part.split(' = '))}" for part in line.strip().split(", ")]
    assert recipes.load("digits", overrides=overrides).resources == recipes.Resources(
        cores=2, gpus=0.25
    )


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)  # Ray's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_they_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is started by its own means: `ray stop` would end every cluster of this machine."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    light = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **light})
    programs = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RAY_ADDRESS": cluster.address,
    }
    try:
        for command in COMMANDS:
            words = shlex.split(command)
            if words[0] == "ray":
                continue
            if words[0] == "reslearn":
                words = [sys.executable, "-m", *words]
            done = subprocess.run(
                words,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    finally:
        cluster.shutdown()
    assert (tmp_path / "runs" / "two" / "result.json").is_file()
    assert len(list((tmp_path / "studies" / "on-ray").glob("*/result.json"))) == 2
