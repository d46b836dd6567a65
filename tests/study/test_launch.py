"""Runs as forks of one process with its imports done. A small script stands in for training."""

import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest

from reslearn.study import Job, LocalEngine, WarmStart, grid, run_study

# The name of the model selects what the stand-in does.
TRAIN = r"""
import json, os, signal, sys, time
from pathlib import Path

arguments = sys.argv[1:]
folder = Path(arguments[arguments.index("--out") + 1])
model = arguments[arguments.index("--model") + 1]
print("a word", flush=True)
if model == "broken":
    print("no images", file=sys.stderr)
    sys.exit(2)
if model == "crashing":
    os.kill(os.getpid(), signal.SIGKILL)

def stop(number, frame):
    (folder / "checkpoint").write_text("step 1")
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
(folder / "begun").write_text(str(os.getppid()))
for _ in range({"long": 1000, "lasting": 50}.get(model, 1)):
    time.sleep(0.02)
result = {
    "environment": os.environ.get("OMP_NUM_THREADS"),
    "preloaded": "colorsys" in sys.modules,
    "session": os.getsid(0) == os.getpid(),
}
(folder / "result.json").write_text(json.dumps(result))
"""

STUDY = r"""
import sys
from test_launch import jobs_for, warm
from reslearn.study import LocalEngine, run_study

if __name__ == "__main__":
    folder = sys.argv[1]
    engine = LocalEngine(jobs=1, launch=warm(folder))
    run_study(jobs_for(folder, "long"), folder, engine=engine)
"""


STOPPED = r"""
import os, sys
from pathlib import Path
from test_launch import jobs_for, warm
from reslearn.study import LocalEngine, run_study

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    engine = LocalEngine(jobs=1, launch=warm(folder, "slow_to_import"))
    report = run_study(jobs_for(folder, "long", "good"), folder, engine=engine)
    (folder / "outcomes").write_text(" ".join(outcome.status for outcome in report.outcomes))
"""


def warm(folder: Path | str, *preload: str) -> WarmStart:
    script = Path(folder) / "train.py"
    script.write_text(TRAIN)
    return WarmStart(
        functools.partial(runpy.run_path, str(script), run_name="__main__"),
        preload=["colorsys", *preload],
    )


def jobs_for(folder: Path | str, *models: str) -> list[Job]:
    return grid(models=models, seeds=[0], recipe="digits", folder=folder)


def environment(*folders: Path) -> dict[str, str]:
    """Return an environment in which scripts can import this module and modules in `folders`."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, folders), str(Path(__file__).parent), *sys.path]),
    }


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "off")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    forkserver._forkserver._stop()  # other tests start servers that import other modules


@pytest.fixture(autouse=True)
def _new_server() -> None:
    """Stop the fork server of an earlier test, which has imported other modules."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def test_forked_runs_end_like_separate_processes(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "good", "broken", "crashing", "fine")
    report = run_study(jobs, tmp_path, engine=LocalEngine(jobs=2, launch=warm(tmp_path)))
    assert [outcome.status for outcome in report.outcomes] == [
        "complete",
        "failed",
        "failed",
        "complete",
    ]
    assert report.outcomes[1].reason == "no images"
    assert "SIGKILL" in report.outcomes[2].reason
    for job in (jobs[0], jobs[3]):
        assert json.loads((job.folder / "result.json").read_text()) == {
            "environment": "1",
            "preloaded": True,
            "session": True,
        }
        assert (job.folder / "train.log").read_text().splitlines()[1:] == ["a word"]
    assert "OMP_NUM_THREADS" not in os.environ


def test_runs_outlive_their_fork_server(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, "lasting", "good")
    begun = jobs[0].folder / "begun"

    def kill_the_server() -> None:
        wait_for(lambda: begun.exists() and begun.read_text())
        os.kill(int(begun.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_server)
    killer.start()
    report = run_study(jobs, tmp_path, engine=LocalEngine(jobs=1, launch=warm(tmp_path)))
    killer.join()
    assert [outcome.status for outcome in report.outcomes] == ["complete", "complete"]
    assert min(outcome.seconds for outcome in report.outcomes if outcome.job is jobs[0]) > 0.8, (
        "the engine waited for the run"
    )


def test_a_fork_does_not_run_our_main_module_again(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    count = f"with open({str(tmp_path / 'times')!r}, 'a') as file:\n    file.write('once ')\n"
    script.write_text(count + STUDY.replace("long", "good"))
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, env=environment())
    assert (tmp_path / "times").read_text() == "once "


def test_the_runs_of_a_killed_study_stop(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    (job,) = jobs_for(tmp_path, "long")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment()
    ) as process:
        wait_for((job.folder / "begun").exists)
        process.kill()
    wait_for((job.folder / "checkpoint").exists)
    assert not job.is_complete


def test_a_signal_to_the_process_group_stops_a_study_whose_fork_server_is_starting(
    tmp_path: Path,
) -> None:
    """`timeout` and service managers signal the process group, which includes the fork server."""
    script = tmp_path / "study.py"
    script.write_text(STOPPED)
    importing = str(tmp_path / "importing")
    (tmp_path / "slow_to_import.py").write_text(
        f"import pathlib, time; pathlib.Path({importing!r}).touch(); time.sleep(1)"
    )
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment(tmp_path),
        start_new_session=True,
    ) as process:
        wait_for((tmp_path / "importing").exists)
        os.killpg(process.pid, signal.SIGTERM)
    assert (tmp_path / "outcomes").read_text() == "interrupted interrupted"
