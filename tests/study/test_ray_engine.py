"""The Ray engine. Fast tests run a task without Ray; slow tests use a cluster and kill one node."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_engine import TRAIN, jobs_for, wait_for
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.cli.paper import EXHIBITS
from reslearn.cli.study import engine_named
from reslearn.paper import load_exhibit
from reslearn.runs import RunFolder
from reslearn.study import Job, LocalEngine, RayEngine, run_study
from reslearn.study.engine import launch_command
from reslearn.study.ray_engine import _why, run_here

pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "off")


def task(job: Job, folder: Path) -> Any:
    script = folder / "train.py"
    script.write_text(TRAIN)
    job.folder.mkdir(exist_ok=True)
    return run_here(job, partial(launch_command, ("python", "-S", str(script))), str(folder))


def test_a_task_runs_the_job_and_returns_its_status(tmp_path: Path) -> None:
    good, broken = jobs_for(tmp_path, "a", "broken")
    assert task(good, tmp_path).status == 0
    assert good.is_complete
    run_exit = task(broken, tmp_path)
    assert run_exit.status == 2
    assert _why(broken, run_exit) == "ValueError: no images"
    assert (good.folder / "train.log").read_text() == f"$ {good.command}\n"


def test_a_folder_that_the_machine_does_not_see_is_one_line(tmp_path: Path) -> None:
    (job,) = jobs_for(tmp_path, "a")
    for folder, directory in ((job.folder, tmp_path), (tmp_path, tmp_path / "elsewhere")):
        run_exit = run_here(
            replace(job, folder=folder), partial(launch_command, ("python",)), str(directory)
        )
        unseen = folder if folder == job.folder else directory
        assert _why(job, run_exit) == (
            f"machine {run_exit.machine} does not see {unseen}: "
            "all machines must share the file system of the study"
        )


def test_a_task_that_is_canceled_waits_for_the_checkpoint(tmp_path: Path) -> None:
    (job,) = jobs_for(tmp_path, "long")

    def cancel() -> None:  # like Ray, by a KeyboardInterrupt in the main thread
        wait_for((job.folder / "metrics.jsonl").exists)
        os.kill(os.getpid(), signal.SIGINT)

    canceler = threading.Thread(target=cancel)
    canceler.start()
    with pytest.raises(KeyboardInterrupt):
        task(job, tmp_path)
    canceler.join()
    assert int((job.folder / "checkpoint").read_text()) > 0


def test_a_retry_waits_for_the_run_that_is_still_writing(tmp_path: Path) -> None:
    """A machine that Ray has lost may still be running."""
    (job,) = jobs_for(tmp_path, "a")
    job.folder.mkdir()
    with RunFolder(job.folder).lock():
        second = threading.Thread(target=task, args=(job, tmp_path))
        second.start()
        time.sleep(0.3)
        assert not (job.folder / "metrics.jsonl").exists()
    second.join()
    assert job.is_complete


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="jobs = 0: at least 1 is needed"):
        RayEngine(jobs=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ValueError,
        match=r"--engine ray needs an extra that is not installed: pip install 'reslearn\[ray\]'",
    ):
        RayEngine()


FLAGS = (
    "model.name=resnet8",
    "schedule.duration=300 steps",
    "schedule.milestones=[]",
    "data.train_images=100",
    "train.batch_size=10",
    "train.read_every_steps=5",
    "train.checkpoint_every_seconds=0",
    "evaluation.recompute_images=50",
    "evaluation.every=100 steps",
)


def real_jobs(folder: Path) -> list[Job]:
    """Return real trainings on digits, which take a few seconds each."""
    from reslearn.study import grid

    return grid(
        models=["resnet8"], seeds=[0, 1, 2], recipe="digits", folder=folder, overrides=[FLAGS[1:]]
    )


def outcome(job: Job) -> tuple[dict[str, Any], bytes]:
    result = json.loads((job.folder / "result.json").read_text())
    weights = (job.folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(weights[:8], "little")  # its header holds the seconds of the result
    return {
        key: value
        for key, value in result.items()
        if key not in ("seconds", "resumed_at", "sha256", "checksum")
    }, weights[start:]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start a cluster whose head has no cores. Tests add nodes."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    light = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **light})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)  # Ray's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_node_does_not_change_the_results(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    nodes = [cluster.add_node(num_cpus=1, include_log_monitor=False) for _ in range(2)]
    jobs = real_jobs(tmp_path / "ray")
    killed: list[str] = []

    def kill_a_node() -> None:
        wait_for(
            lambda: (
                sum(
                    bool(RunFolder(job.folder).checkpoints()) for job in jobs if not job.is_complete
                )
                == 2
            ),
            seconds=300,
        )
        own_node = ray.get_runtime_context().get_node_id()  # the node that this process joined
        victim = next(node for node in nodes if node.node_id != own_node)
        cluster.remove_node(victim, allow_graceful=False)
        killed.append(victim.node_id)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    capfd.readouterr()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    report = run_study(jobs, tmp_path / "ray", engine=engine_named("ray", jobs=None))
    killer.join()
    assert report.lines() == ["3 of 3 runs complete"]
    assert killed
    assert capfd.readouterr() == ("", "")  # the output of Ray went to ray.log
    resumed = [json.loads((job.folder / "result.json").read_text())["resumed_at"] for job in jobs]
    assert any(resumed), "a run resumed from its checkpoint on another node"

    local = real_jobs(tmp_path / "local")
    assert run_study(local, tmp_path / "local", engine=LocalEngine()).is_complete
    for ray_job, local_job in zip(jobs, local, strict=True):
        assert outcome(ray_job) == outcome(local_job)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_study_on_ray_stops_and_fails_like_a_local_study(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2, include_log_monitor=False)
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    engine = RayEngine(address=cluster.address, command=("python", "-S", str(script)))
    good, broken, greedy = jobs_for(tmp_path, "a", "broken", "b")
    greedy = replace(greedy, cores=64)  # more than any machine has: it runs alone
    report = run_study([good, broken, greedy], tmp_path, engine=engine)
    assert [outcome.status for outcome in report.outcomes] == ["complete", "failed", "complete"]
    assert report.failed[0].reason == "ValueError: no images"

    long, late = jobs_for(tmp_path / "stopped", "long", "wait1")
    stop = threading.Thread(
        target=lambda: (
            wait_for((long.folder / "metrics.jsonl").exists, 60),
            os.kill(os.getpid(), signal.SIGTERM),
        )
    )
    stop.start()
    report = run_study([long, replace(late, cores=2)], tmp_path / "stopped", engine=engine)
    stop.join()
    assert report.is_interrupted
    assert int((long.folder / "checkpoint").read_text()) > 0


def needs(data: str) -> list[str]:
    """Return the tables and figures that need this data set: ImageNet, CIFAR-10 or none."""
    return [name for name in EXHIBITS if load_exhibit(name).EXPERIMENT.data == data]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("names", "num_runs"),
    [([*needs("none"), *needs("CIFAR-10")], 30), (needs("ImageNet"), 6), (["claims"], 32)],
    ids=["on digits", "on pictures", "claims"],
)
def test_both_engines_reproduce_the_paper_equally(
    names: list[str],
    num_runs: int,
    cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_pictures: Callable[..., Path],
) -> None:
    """Run the paper commands in smoke form, with real trainings that tables and figures share.

    Exhibits of ImageNet use a folder of pictures with enough classes for a top-5 error.
    """
    pictures = make_pictures(tmp_path / "pictures", classes=tuple("abcdefg"), train=8, test=2)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    cluster.add_node(num_cpus=2, include_log_monitor=False)
    for name in names:
        data = str(pictures) if name in needs("ImageNet") else "digits"
        options = [] if name in needs("none") else ["--budget", "smoke", "--data", data]
        contents = []
        for engine in ("local", "ray"):
            out = tmp_path / engine
            invocation = CliRunner().invoke(
                app, ["paper", name, *options, "--engine", engine, "--out", str(out), "--json"]
            )
            assert invocation.exit_code == 0, (
                f"{name} on {engine}: {invocation.output} {invocation.exception}"
            )
            content = json.loads(invocation.stdout)
            contents.append(
                {
                    key: value
                    for key, value in content.items()
                    if key not in ("page", "seconds", "command")
                }
            )
        assert contents[0] == contents[1], name
    local_runs, ray_runs = (
        sorted(path.parent.name for path in (tmp_path / engine).rglob("result.json"))
        for engine in ("local", "ray")
    )
    assert local_runs == ray_runs and len(local_runs) == num_runs
