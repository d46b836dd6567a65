"""Trials side by side give what they give one after another, and nothing is left running."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from reslearn.diagnose import DiagnosisError, diagnose, make_problem
from reslearn.diagnose.parallel import jobs_here, side_by_side

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(),
    reason="forks of a process that trained: Linux, no GPU",
)


def slept(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    assert list(side_by_side([partial(slept, 0.2 - 0.05 * i, i) for i in range(4)], jobs)) == [
        0,
        1,
        2,
        3,
    ]


def test_a_task_is_taken_when_it_can_begin() -> None:
    before = len(multiprocessing.active_children())
    running: list[int] = []

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(6):
            running.append(len(multiprocessing.active_children()) - before)
            yield partial(slept, 0.05, number)

    assert list(side_by_side(tasks(), 2)) == list(range(6))
    assert max(running) <= 1, "a third one was taken while two ran"


def test_tasks_know_what_lay_in_memory_and_use_one_thread() -> None:
    weights = torch.ones(1000)
    torch.autograd.backward(nn.Linear(1000, 3)(weights).sum())  # this process has trained
    answers = side_by_side(
        [lambda: (float(weights.sum()), torch.get_num_threads(), os.getpid())] * 2, 2
    )
    (sum_a, threads_a, pid_a), (sum_b, threads_b, pid_b) = answers
    assert (
        sum_a == sum_b == 1000
        and threads_a == threads_b == 1
        and len({pid_a, pid_b, os.getpid()}) == 3
    )


class OwnError(Exception):
    def __init__(self, one: int, two: int) -> None:  # pickle could not make it again
        super().__init__(f"{one} and {two}")


def test_what_a_task_raises_is_raised_here_and_the_others_end() -> None:
    def wrong() -> int:
        raise OwnError(1, 2)

    with pytest.raises(RuntimeError, match="OwnError: 1 and 2"):
        list(side_by_side([wrong, partial(slept, 60, 0)], 2))
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(DiagnosisError, match="no memory"):
        list(side_by_side([lambda: os.kill(os.getpid(), signal.SIGKILL), partial(slept, 60, 0)], 2))
    assert not multiprocessing.active_children()


def test_whoever_stops_listening_ends_them() -> None:
    results = side_by_side([partial(slept, 0, 0), partial(slept, 60, 1)], 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # an iterator to others, a generator to those who know
    assert not multiprocessing.active_children()


def test_they_end_with_the_process_that_they_were_forked_from() -> None:
    code = """
import os, time
from reslearn.diagnose.parallel import side_by_side
def task():
    print(os.getpid(), flush=True)
    time.sleep(60)
list(side_by_side([task, task], 2))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
    until = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_jobs_that_cannot_be() -> None:
    assert jobs_here(1) == 1 <= jobs_here(None) <= 8
    with pytest.raises(DiagnosisError, match="jobs 0: at least 1"):
        jobs_here(0)


def test_a_diagnosis_with_two_jobs_is_that_with_one(few_trials: Callable[..., None]) -> None:
    few_trials(LR_FACTORS=(1 / 16, 1.0), MAX_WIDENINGS=1, MAX_SEEDS={1: 2})

    def build() -> nn.Module:
        layers = [part for _ in range(6) for part in (nn.Linear(8, 8), nn.ReLU())]
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *layers, nn.Linear(8, 2))

    x = torch.randn(60, 4)
    problem = make_problem(build, (x, (x[:, 0] > 0).long()), lr=0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, two = (diagnose(problem, minutes=5, steps=10, jobs=jobs) for jobs in (1, 2))
    finally:
        torch.set_num_threads(threads)
    assert one.verdict == two.verdict and one.rates == two.rates and one.evidence == two.evidence
    numbers = [
        sorted(
            (trial.condition, trial.seed, trial.lr, trial.steps, trial.train_score, trial.curve)
            for trial in found.trials
        )
        for found in (one, two)
    ]
    assert len(numbers[0]) > 8 and numbers[0] == numbers[1]
