"""Commands of docs/many-machines.md are parsed; a slow test also runs them in order."""

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
COMMANDS = re.findall(r"^\$ (.+)$", TEXT.replace("\\\n", ""), flags=re.MULTILINE)


def reslearn_arguments(command: str) -> list[str]:
    """Return the arguments of reslearn in a command; empty if the command does not use it."""
    words = shlex.split(command)
    return words[words.index("reslearn") + 1 :] if "reslearn" in words else []


def test_the_page_has_its_commands() -> None:
    programs = [shlex.split(command)[0] for command in COMMANDS]
    assert programs == ["torchrun", "torchrun", "ray", "reslearn", "ray"]


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if reslearn_arguments(command)]
)
def test_the_options_of_a_command_exist(command: str) -> None:
    name, *arguments = reslearn_arguments(command)
    group = typer.main.get_command(app)
    assert group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]


def test_the_resources_of_the_page_are_valid_in_a_recipe() -> None:
    (line,) = re.findall(r"^resources = \{(.+)\}", TEXT, flags=re.MULTILINE)
    overrides = [f"resources.{'='.join(part.split(' = '))}" for part in line.strip().split(", ")]
    resources = recipes.load("digits", overrides=overrides).resources
    assert resources == recipes.Resources(cores=2, gpus=0.25)


@pytest.mark.slow
@pytest.mark.filterwarnings(  # from Ray itself
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_commands_run_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run all commands except `ray`: `ray stop` would end every Ray cluster on this machine."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    light = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **light})
    programs = str(Path(sys.executable).parent)
    search_path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search_path, "RAY_ADDRESS": cluster.address}
    try:
        for command in COMMANDS:
            words = shlex.split(command)
            if words[0] == "ray":
                continue
            if words[0] == "reslearn":
                words = [sys.executable, "-m", *words]
            process = subprocess.run(
                words,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    finally:
        cluster.shutdown()
    assert (tmp_path / "runs" / "two" / "result.json").is_file()
    assert len(list((tmp_path / "studies" / "on-ray").glob("*/result.json"))) == 2
