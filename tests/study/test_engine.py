"""The local engine with real processes that fail, resume, are stopped and are killed.

A small script stands in for `reslearn train`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reslearn.runs import RunError, RunFolder
from reslearn.runs.json_files import digest
from reslearn.study import Job, JobStatus, LocalEngine, StudyInUseError, grid, run_study

# The name of the model selects what the stand-in does. Like a training, it counts steps, writes a
# checkpoint on SIGTERM, and resumes.
TRAIN = r"""
import json, os, signal, sys, time
from pathlib import Path

arguments = sys.argv[1:]
folder = Path(arguments[arguments.index("--out") + 1])
model = arguments[arguments.index("--model") + 1]
with (folder.parent / "events").open("a") as events:
    events.write(f"begin {folder.name}\n")
if model == "broken":
    print("reading images")
    print("ValueError: no images", file=sys.stderr)
    print()
    sys.exit(2)
if model == "silent":
    sys.exit(3)
if model == "without":
    sys.exit(0)
if model == "diverging":
    files = json.loads((folder.parent / "diverged-files.json").read_text())
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    sys.exit(2)
if model == "crashing":
    os.kill(os.getpid(), signal.SIGKILL)
total = {"long": 300, "stubborn": 1000}.get(model, 30 if model.startswith("wait") else 3)
checkpoint, metrics = folder / "checkpoint", folder / "metrics.jsonl"
step = int(checkpoint.read_text()) if checkpoint.exists() else 0

def stop(number, frame):
    if model == "stubborn":
        return
    time.sleep(0.6)
    checkpoint.write_text(str(step))
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
resumed_at = step
while step < total:
    step += 1
    with metrics.open("a") as file:
        record = {"kind": "train", "step": step, "epoch": 20 * step / total}
        file.write(json.dumps({**record, "loss": 1 / step, "top1_error_pct": 50}) + "\n")
    time.sleep(0.01)
environment = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "GLIBC_TUNABLES")}
result = {"resumed_at": resumed_at, "environment": environment, "arguments": arguments}
(folder / "result.json").write_text(json.dumps(result))
with (folder.parent / "events").open("a") as events:
    events.write(f"end {folder.name}\n")
"""

# A study in a process of its own, so that it can be killed: STUDY FOLDER MODELS...
STUDY = r"""
import sys
from test_engine import engine, jobs_for
from reslearn.study import run_study

folder = sys.argv[1]
jobs = jobs_for(folder, *sys.argv[2:])
command = "reslearn study my-study.toml"
report = run_study(jobs, folder, engine=engine(folder), continue_command=command)
print("\n".join(report.lines()))
sys.exit(report.exit_status)
"""


def engine(folder: Path | str, jobs: int = 2) -> LocalEngine:
    script = Path(folder) / "train.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(TRAIN)
    return LocalEngine(jobs=jobs, command=(sys.executable, "-S", str(script)))


def jobs_for(folder: Path | str, *models: str, costs: Sequence[float] = ()) -> list[Job]:
    cost = dict(zip(models, costs, strict=False))
    jobs = grid(
        models=models,
        seeds=[0],
        recipe="digits",
        folder=folder,
        cost=lambda recipe: cost.get(recipe.model.name, 1.0),
    )
    write_diverged_files(Path(folder), jobs)
    return jobs


def write_diverged_files(folder: Path, jobs: list[Job]) -> None:
    """Write the files of the run that diverges: the stand-in cannot import what computes them."""
    for job in jobs:
        if job.recipe.model.name == "diverging":
            recipe, record = job.recipe.to_dict(), {"step": 4, "reason": "the loss is nan"}
            sealed = {**record, "checksum": digest(recipe, {}, [], record)}
            files = {"recipe.json": recipe, "environment.json": {}, "diverged.json": sealed}
            (folder / "diverged-files.json").write_text(json.dumps(files))


def result(job: Job) -> dict[str, object]:
    value: dict[str, object] = json.loads((job.folder / "result.json").read_text())
    return value


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.02)


def has_steps(job: Job) -> bool:
    path = job.folder / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def is_locked(folder: Path) -> bool:
    try:
        run_study([], folder)
    except StudyInUseError:
        return True
    return False


@contextlib.contextmanager
def study_process(folder: Path, *models: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", STUDY, str(folder), *models],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "off")


def test_a_complete_study_runs_nothing_again(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "a", "b", "c")
    report = run_study(jobs, tmp_path, engine=engine(tmp_path))
    assert report.is_complete
    assert [outcome.job for outcome in report.outcomes] == jobs
    assert report.lines() == ["3 of 3 runs complete"]
    repeated = run_study(jobs, tmp_path, engine=engine(tmp_path))
    assert [outcome.status for outcome in repeated.outcomes] == ["skipped"] * 3
    assert repeated.lines() == ["3 of 3 runs complete, 3 of them before"]
    assert (tmp_path / "events").read_text().count("begin") == 3


def test_a_run_gets_its_arguments_and_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    (job,) = jobs_for(tmp_path, "a")
    run_study([job], tmp_path, engine=engine(tmp_path))
    assert result(job)["arguments"] == list(job.arguments)
    assert result(job)["environment"] == {
        "OMP_NUM_THREADS": "1",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1",
    }
    assert (job.folder / "train.log").read_text() == f"$ {job.command}\n"


def test_the_longest_run_starts_first_and_one_job_means_one_run_at_a_time(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "a", "b", "c", "d", costs=[1, 3, 2, 4])
    run_study(jobs, tmp_path, engine=engine(tmp_path, jobs=1))
    events = (tmp_path / "events").read_text().split()
    assert [name.partition("-")[0] for name in events[1::4]] == ["d", "b", "c", "a"]
    assert events[::2] == ["begin", "end"] * 4


def test_two_jobs_run_concurrently(tmp_path: Path) -> None:
    run_study(
        jobs_for(tmp_path, "wait1", "wait2", "wait3"), tmp_path, engine=engine(tmp_path, jobs=2)
    )
    running, max_running = 0, 0
    for line in (tmp_path / "events").read_text().splitlines():
        running += 1 if line.startswith("begin") else -1
        max_running = max(max_running, running)
    assert max_running == 2


def test_a_failed_run_has_a_reason_and_the_others_continue(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "broken", "silent", "without", "crashing", "a")
    report = run_study(
        jobs, tmp_path, engine=engine(tmp_path), continue_command="reslearn study x.toml"
    )
    reasons = {outcome.job.recipe.model.name: outcome.reason for outcome in report.failed}
    assert reasons["broken"] == "ValueError: no images"
    assert reasons["silent"] == "ended with status 3 and an empty log"
    assert reasons["without"].startswith("ended without a result; see ")
    assert reasons["crashing"].startswith("ended by SIGKILL (out of memory?); see ")
    assert report.outcomes[-1].status == "complete"
    assert report.lines()[0] == "1 of 5 runs complete, 4 failed"
    assert report.lines()[-1] == "continue with: reslearn study x.toml"
    assert not report.is_interrupted
    assert report.exit_status == 1


def test_a_diverged_run_is_called_diverged_and_is_not_run_again(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "diverging", "broken", "a")
    report = run_study(jobs, tmp_path, engine=engine(tmp_path), continue_command="again")
    assert [outcome.status for outcome in report.outcomes] == ["diverged", "failed", "complete"]
    expected = [
        "1 of 3 runs complete, 1 diverged, 1 failed",
        "diverging-seed0: diverged: the loss is nan",
        "broken-seed0: failed: ValueError: no images",
        "diverged runs are not trained again: change the recipe and choose another --out",
        "continue with: again",
    ]
    assert report.lines() == expected
    repeated = run_study(jobs, tmp_path, engine=engine(tmp_path), continue_command="again")
    assert repeated.lines() == [
        f"{expected[0].replace(', 1 d', ', 1 of them before, 1 d')}",
        *expected[1:],
    ]
    assert (tmp_path / "events").read_text().count("begin diverging") == 1


def test_a_study_whose_runs_all_diverged_offers_no_continuation(tmp_path: Path) -> None:
    (job,) = jobs_for(tmp_path, "diverging")
    report = run_study([job], tmp_path, engine=engine(tmp_path), continue_command="again")
    assert report.lines()[0] == "0 of 1 runs complete, 1 diverged"
    assert not any("continue with" in line for line in report.lines())
    assert (report.failed, report.exit_status) == ((), 1)


def test_a_folder_that_cannot_be_created_fails_one_run_only(tmp_path: Path) -> None:
    bad, good = jobs_for(tmp_path, "b", "a")
    bad.folder.write_text("a file is in the way")
    report = run_study([bad, good], tmp_path, engine=engine(tmp_path))
    assert [outcome.status for outcome in report.outcomes] == ["failed", "complete"]
    assert "File exists" in report.failed[0].reason


def test_a_killed_study_leaves_no_runs_and_continues(tmp_path: Path) -> None:
    short, long = jobs_for(tmp_path, "a", "long")
    with study_process(tmp_path, "a", "long") as process:
        wait_for(lambda: short.is_complete and has_steps(long))
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The run is writing its checkpoint, and locks the folder until then.
    with pytest.raises(StudyInUseError):
        run_study([short, long], tmp_path)
    wait_for(lambda: not is_locked(tmp_path))
    assert int((long.folder / "checkpoint").read_text()) > 0
    report = run_study([short, long], tmp_path, engine=engine(tmp_path))
    assert [outcome.status for outcome in report.outcomes] == ["skipped", "complete"]
    assert result(long)["resumed_at"] == int((long.folder / "checkpoint").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_waits_for_checkpoints_and_prints_how_to_continue(
    tmp_path: Path, number: signal.Signals
) -> None:
    first, second, third = jobs_for(tmp_path, "long", "a", "b", costs=[3, 2, 1])
    with study_process(tmp_path, "long", "stubborn") as process:
        wait_for(lambda: has_steps(first))
        with pytest.raises(
            StudyInUseError, match=rf"is in use by another study \(process {process.pid}, "
        ):
            run_study([second, third], tmp_path)
        wait_for(lambda: (tmp_path / "events").read_text().count("begin") == 2)
        process.send_signal(number)
        wait_for((first.folder / "checkpoint").exists)
        process.send_signal(number)  # the run "stubborn" ignores the first signal
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out.splitlines() == [
        "0 of 2 runs complete, 2 interrupted",
        "continue with: reslearn study my-study.toml",
    ]
    assert not is_locked(tmp_path)
    assert int((first.folder / "checkpoint").read_text()) > 0


def test_no_run_begins_after_a_stop(tmp_path: Path) -> None:
    models = ["long", "a", "b", "c"]
    jobs = jobs_for(tmp_path, *models, costs=[4, 3, 2, 1])
    timer = subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -INT {os.getpid()}"])
    report = run_study(jobs, tmp_path, engine=engine(tmp_path, jobs=1))
    timer.wait()
    assert report.is_interrupted
    assert [outcome.reason for outcome in report.outcomes] == [
        "stopped on request",
        "not begun",
        "not begun",
        "not begun",
    ]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_engine_can_be_passed(tmp_path: Path) -> None:
    class Refusing:
        def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
            return [JobStatus(job=job, status="failed", reason="not today") for job in jobs]

    report = run_study(jobs_for(tmp_path, "a"), tmp_path, engine=Refusing(), continue_command="x")
    assert report.lines() == [
        "0 of 1 runs complete, 1 failed",
        "a-seed0: failed: not today",
        "continue with: x",
    ]


def test_a_folder_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    jobs = grid(models=["resnet8"], seeds=[0, 1], recipe="digits", folder=tmp_path)
    for job in jobs:
        RunFolder.create(job.folder, jobs[0].recipe.to_dict(), {}).finish({"seconds": 1.0})
    with pytest.raises(
        RunError,
        match=r"seed1.*recipe\.json belongs to another run \(seed: 1 -> 0\): remove the folder",
    ):
        run_study(jobs, tmp_path)


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^jobs = 0: at least 1 is needed$"):
        LocalEngine(jobs=0)
    (job,) = jobs_for(tmp_path, "a")
    with pytest.raises(ValueError, match=r"is the folder of 2 jobs"):
        run_study([job, job], tmp_path)


def test_the_display_is_silent_prints_lines_or_draws_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stderr_of(folder: Path, **environment: str) -> str:
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            jobs = jobs_for(folder, "a", "broken")
            run_study(jobs, folder, engine=engine(folder, jobs=1))
        out, error = capfd.readouterr()
        assert out == ""
        return error

    assert stderr_of(tmp_path / "off", RESLEARN_PROGRESS="off") == ""
    lines = stderr_of(tmp_path / "lines", RESLEARN_PROGRESS="on").splitlines()
    assert lines[0] == "[0/2] a-seed0: begun"
    assert lines[1].startswith("[1/2] a-seed0: complete after 0:00:0")
    assert lines[1].endswith("step 3, epoch 20.0 of 20, loss 0.3333, error 50 %")
    assert lines[2:] == [
        "[1/2] broken-seed0: begun",
        "[2/2] broken-seed0: failed: ValueError: no images",
    ]
    bars = stderr_of(tmp_path / "bars", RESLEARN_PROGRESS="on", FORCE_COLOR="1")
    assert "study" in bars
    assert "broken-seed0: failed: ValueError: no images" in bars


def test_the_lock_of_a_study_follows_no_link(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path / "study", "a")
    (tmp_path / "study").mkdir(exist_ok=True)
    (tmp_path / "thesis.tex").write_text("done")
    (tmp_path / "study" / ".study.lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(RunError, match=r"\.study\.lock is no regular file: remove it"):
        run_study(jobs, tmp_path / "study", engine=engine(tmp_path), continue_command="again")
    assert (tmp_path / "thesis.tex").read_text() == "done"
