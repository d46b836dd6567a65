"""The trials: each disturbs one small run and raises an error if the outcome is wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reslearn import recipes
from reslearn.interop import read_bundle
from reslearn.report import run_page
from reslearn.runs import RunFolder, read_analyses
from reslearn.train import Machine, evaluate_bundle, train_recipe

SMALL = (
    "model.name=resnet8",
    "schedule.kind=constant",
    "schedule.duration=11 steps",
    "optimizer.lr=0.05",
    "data.train_images=100",
    "train.batch_size=20",
    "train.read_every_steps=3",
    "train.checkpoint_every_seconds=0",
    "train.ema=0.9",
    "evaluation.recompute_images=0",
    "evaluation.every=4 steps",
    'evaluation.snapshots=["5 steps"]',
)
ONE_THREAD = Machine(threads=1)
# What a refusal may be: the errors that the command line prints in one line.
REFUSALS = (ValueError, OSError)
REFUSED_STATUS = 3


@dataclass
class Site:
    """The folder of the trials, and the runs that they copy.

    Attributes:
        folder: Holds everything.
        recipe: What each run trains.
        finished: A complete, undisturbed run with an analysis.
        unfinished: The same run, killed after step 9, with two checkpoints.
        expected: The content of `finished`.
        other_recipe: A recipe of another seed.
        other_expected: The content of its undisturbed run.
        num_events: File-system events of a run, from its first to its last.
        run_seconds: Time of a run without imports.
        random: Draws moments and positions.
        num_kills: Processes that were killed so far.
    """

    folder: Path
    recipe: recipes.Recipe
    finished: Path
    unfinished: Path
    expected: dict[str, Any]
    other_recipe: recipes.Recipe
    other_expected: dict[str, Any]
    num_events: int
    run_seconds: float
    random: random.Random
    num_kills: int = 0

    @classmethod
    def build(cls, folder: Path, seed: int) -> Site:
        """Train the two runs."""
        recipe = recipes.load("digits", overrides=list(SMALL))
        other_recipe = recipes.load("digits", overrides=[*SMALL, "seed=2"])
        finished, unfinished, other = (folder / name for name in ("finished", "cut", "other"))
        train_recipe(recipe, finished, ONE_THREAD)
        began_at = time.monotonic()
        train_recipe(other_recipe, other, ONE_THREAD)
        run_seconds = time.monotonic() - began_at
        command = [sys.executable, "-m", "reslearn", "analyze", str(finished), "responses"]
        subprocess.run([*command, "--images", "50"], check=True, stdout=subprocess.DEVNULL)
        read_everything(finished)
        die = partial(train_and_die, names=("os.rename",), below="checkpoints")
        start_process(partial(die, recipe, unfinished, 3)).join()
        assert len(RunFolder(unfinished).checkpoints()) == 2, "the run died at another moment"
        return cls(
            folder=folder,
            recipe=recipe,
            finished=finished,
            unfinished=unfinished,
            expected=content(finished),
            other_recipe=other_recipe,
            other_expected=content(other),
            num_events=count_events(recipe, folder),
            run_seconds=run_seconds,
            random=random.Random(seed),
        )

    @contextlib.contextmanager
    def copy(self, source: Path | None = None) -> Iterator[Path]:
        """Yield the path of a copy of a run, or of a run to begin."""
        path = self.folder / "trial"
        if source is not None:
            shutil.copytree(source, path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def train(self, path: Path) -> None:
        """Begin or resume the run at `path`, in this process."""
        train_recipe(self.recipe, path, ONE_THREAD, resume=True)

    def check(self, path: Path) -> None:
        """Raise AssertionError unless the run at `path` equals the undisturbed one."""
        compare(content(path), self.expected)


def content(path: Path) -> dict[str, Any]:
    """Return everything that a run computed, without times, in a form that can be compared."""
    folder = RunFolder.open(path)
    volatile = {"seconds", "resumed_at", "sha256", "checksum"}
    bundle = read_bundle(folder.bundle_path, recipe_hash=folder.recipe_hash)
    snapshots = [read_bundle(snapshot) for snapshot in folder.snapshots().values()]
    return {
        "weights": [bits(network.network) for network in (bundle, *snapshots)],
        "metrics": [without(line, volatile) for line in folder.metrics()],
        "result": without(folder.result, volatile),
        "recipe": without(folder.recipe, {"overrides"}),  # the command adds its own
        "environment": without(folder.environment, {*volatile, "started_at", "command"}),
        "classes": bundle.classes,
        "preprocessing": bundle.preprocess.to_json(),
    }


def compare(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise AssertionError unless two runs computed the same."""
    for key, value in expected.items():
        assert actual[key] == value, f"another {key}"


def bits(network: torch.nn.Module) -> dict[str, bytes]:
    """Return the bytes of each tensor of a network."""
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def without(record: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def refuses(path: Path, work: Callable[[], object]) -> bool:
    """Return whether `work` refuses a fault of the run at `path`, in one line and without result.

    Raises:
        AssertionError: If the message has several lines, or a result was written nevertheless.
    """
    was_complete = RunFolder(path).is_complete
    message = ""
    try:
        work()
    except REFUSALS as error:
        message = str(error) or type(error).__name__
    assert "\n" not in message, f"the message has several lines: {message}"
    if message:
        assert was_complete or not RunFolder(path).is_complete, "refused, but a result is there"
    return bool(message)


# Processes that are killed


def start_process(work: Callable[[], object]) -> Any:
    """Start `work` in a fork of a process that has imported everything that is slow."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["reslearn.train", "sklearn.datasets", "torch._dynamo"])
    process = forkserver.Process(target=quietly, args=(work,))
    process.start()
    return process


def quietly(work: Callable[[], object]) -> None:
    """Call `work`. A fault that is refused in one line gives REFUSED_STATUS."""
    os.environ["RESLEARN_PROGRESS"] = "off"
    warnings.simplefilter("ignore")
    try:
        work()
    except REFUSALS as error:
        if "\n" in str(error):
            raise
        sys.exit(REFUSED_STATUS)


EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")


def train_and_die(
    recipe: recipes.Recipe,
    path: Path,
    event_number: int,
    *,
    names: Sequence[str] = EVENTS,
    below: str = "",
) -> int:
    """Train in a process that gets SIGKILL before its file-system event `event_number`.

    Events are calls that change the run folder, or open one of its files.

    Returns:
        The number of events, if the process survives.
    """
    num_events, place = 0, str(path / below)

    def count(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal num_events
        if name not in names:
            return
        if not any(place in os.fsdecode(part) for part in arguments[:2] if is_path(part)):
            return
        num_events += 1
        if num_events == event_number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    train_recipe(recipe, path, ONE_THREAD, resume=True)
    return num_events


def count_events(recipe: recipes.Recipe, folder: Path) -> int:
    """Return the number of file-system events of a run."""
    path, sizes = folder / "events", folder / "num-events"
    start_process(partial(train_and_count, recipe, path, sizes)).join()
    shutil.rmtree(path)
    return int(sizes.read_text())


def train_and_count(recipe: recipes.Recipe, path: Path, sizes: Path) -> None:
    num_events = train_and_die(recipe, path, -1)
    sizes.write_text(str(num_events))


def is_path(value: object) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def killed_before_event(site: Site, number: int) -> bool:
    """Kill a run before event `number`, the resumed run before another one, then resume it."""
    with site.copy() as path:
        for event in (1 + number % site.num_events, site.random.randrange(1, site.num_events)):
            process = start_process(partial(train_and_die, site.recipe, path, event))
            process.join()
            site.num_kills += process.exitcode == -signal.SIGKILL
        site.train(path)
        site.check(path)
    return False


def killed_at_random(site: Site, number: int) -> bool:
    """Kill a run after a random time and resume it."""
    with site.copy() as path:
        process = start_process(partial(site.train, path))
        while not (path / ".lock").exists() and process.is_alive():
            time.sleep(0.001)
        time.sleep(site.random.uniform(0, site.run_seconds))
        process.kill()
        process.join()
        site.num_kills += process.exitcode == -signal.SIGKILL
        site.train(path)
        site.check(path)
    return False


def command_killed(site: Site, number: int) -> bool:
    """Kill the real command after a random time of its whole life and resume it."""
    with site.copy() as path:
        overrides = [part for override in SMALL for part in ("--set", override)]
        command = [sys.executable, "-m", "reslearn", "train", "digits", *overrides]
        command += ["--threads", "1", "--resume", "--out", str(path)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(site.random.uniform(2, 9))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        site.num_kills += process.wait() == -signal.SIGKILL
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        site.check(path)
    return False


# Flipped bits


def files_of(run: Path) -> list[Path]:
    """Return the files with content, in a fixed order."""
    return sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)


def flip(site: Site, run: Path, number: int) -> Path:
    """Flip one random bit of file `number`, counted cyclically, and return the path of the file."""
    paths = files_of(run)
    path = paths[number % len(paths)]
    damaged = bytearray(path.read_bytes())
    damaged[site.random.randrange(len(damaged))] ^= 1 << site.random.randrange(8)
    path.write_bytes(damaged)
    return path


def flipped_unfinished(site: Site, number: int) -> bool:
    """Flip a bit and resume the run: it is refused, or the run equals the undisturbed one."""
    with site.copy(site.unfinished) as path:
        damaged = flip(site, path, number)
        is_refused = refuses(path, lambda: site.train(path))
        if not is_refused and damaged.parent.name == "snapshots":
            # The snapshot of an earlier step is not read by the training, but by every reader.
            is_refused = refuses(path, lambda: content(path))
        if not is_refused:
            site.check(path)
    return is_refused


def flipped_finished(site: Site, number: int) -> bool:
    """Flip a bit and read all that reports, evaluations and analyses read."""
    with site.copy(site.finished) as path:
        flip(site, path, number)
        is_refused = refuses(path, lambda: read_everything(path))
        if not is_refused:
            site.check(path)
            assert read_analyses(RunFolder(path)) == read_analyses(RunFolder(site.finished))
    return is_refused


def read_everything(path: Path) -> None:
    run_page(path)
    content(path)
    read_analyses(RunFolder(path))
    evaluate_bundle(path, machine=ONE_THREAD)


# Other owners, and a full disk


def replaced(site: Site, number: int) -> bool:
    """Remove the folder of a living run and begin another run there: the old one stops."""
    with site.copy() as path:
        process = start_process(partial(site.train, path))
        while not (path / "metrics.jsonl").exists() and process.is_alive():
            time.sleep(0.001)
        time.sleep(site.random.uniform(0, 0.3))
        while path.exists():
            shutil.rmtree(path, ignore_errors=True)
        train_recipe(site.other_recipe, path, ONE_THREAD)
        process.join()
        assert process.exitcode in (0, REFUSED_STATUS), "the old process ended by an error"
        compare(content(path), site.other_expected)
    return bool(process.exitcode == REFUSED_STATUS)


def resumed_twice(site: Site, number: int) -> bool:
    """Resume one run by two processes at nearly the same time."""
    with site.copy(site.unfinished) as path:
        first = start_process(partial(site.train, path))
        time.sleep(site.random.uniform(0, 0.8))
        is_refused = refuses(site.finished, lambda: site.train(path))
        first.join()
        site.check(path)
        assert len(RunFolder(path).result["resumed_at"]) == 1, "trained by both"
    return is_refused


def disk_full(site: Site, number: int) -> bool:
    """Train on a file system of random size, enlarge it, and resume."""
    disk = site.folder / "disk"
    disk.mkdir()
    kib = site.random.randrange(4, 2500)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", disk], check=True)
    try:
        path = disk / "run"
        is_refused = refuses(path, lambda: site.train(path))
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        site.train(path)
        site.check(path)
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()
    return is_refused
