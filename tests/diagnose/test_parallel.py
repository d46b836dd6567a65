"""Parallel tasks give the results of sequential ones, and no process is left running."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from reslearn.diagnose import Diagnosis, DiagnosisError, diagnose, make_problem
from reslearn.diagnose.parallel import resolve_jobs, run_parallel

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(),
    reason="a process that trained can be forked on Linux without a GPU only",
)


def sleep(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    tasks = [partial(sleep, 0.2 - 0.05 * number, number) for number in range(4)]
    assert list(run_parallel(tasks, jobs)) == [0, 1, 2, 3]


def test_a_task_is_taken_only_when_it_can_start() -> None:
    num_before = len(multiprocessing.active_children())
    num_running: list[int] = []

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(6):
            num_running.append(len(multiprocessing.active_children()) - num_before)
            yield partial(sleep, 0.05, number)

    assert list(run_parallel(tasks(), 2)) == list(range(6))
    assert max(num_running) <= 1, "a third task was taken while two ran"


def test_tasks_share_the_memory_of_this_process_and_use_one_thread() -> None:
    weights = torch.ones(1000)
    torch.autograd.backward(nn.Linear(1000, 3)(weights).sum())  # this process has trained

    def task() -> tuple[float, int, int]:
        return float(weights.sum()), torch.get_num_threads(), os.getpid()

    first, second = run_parallel([task, task], 2)
    assert first[:2] == second[:2] == (1000, 1)
    assert len({first[2], second[2], os.getpid()}) == 3


class UnpicklableError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def test_an_error_in_a_task_is_raised_and_ends_the_other_tasks() -> None:
    def fail() -> int:
        raise UnpicklableError(1, 2)

    with pytest.raises(RuntimeError, match="UnpicklableError: 1 and 2"):
        list(run_parallel([fail, partial(sleep, 60, 0)], 2))
    assert not multiprocessing.active_children()


def test_a_killed_process_is_reported() -> None:
    def kill_itself() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DiagnosisError, match="is memory exhausted"):
        list(run_parallel([kill_itself, partial(sleep, 60, 0)], 2))
    assert not multiprocessing.active_children()


def test_closing_the_results_ends_the_tasks() -> None:
    results = run_parallel([partial(sleep, 0, 0), partial(sleep, 60, 1)], 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # the iterator is a generator
    assert not multiprocessing.active_children()


def test_tasks_end_with_their_parent_process() -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def task() -> None:
        sender.send(os.getpid())
        time.sleep(60)

    parent = context.Process(target=lambda: list(run_parallel([task, task], 2)))
    parent.start()
    pids = [receiver.recv() for _ in range(2)]
    parent.kill()
    parent.join()

    def is_any_alive() -> bool:
        return any(os.path.exists(f"/proc/{pid}") for pid in pids)

    deadline = time.monotonic() + 10
    while is_any_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_any_alive()


def test_a_number_of_jobs_below_one_is_refused() -> None:
    assert resolve_jobs(1) == 1 <= resolve_jobs(None) <= 8
    with pytest.raises(DiagnosisError, match="jobs is 0: give at least 1"):
        resolve_jobs(0)


def test_two_jobs_give_the_diagnosis_of_one(few_trials: Callable[..., None]) -> None:
    few_trials(LR_FACTORS=(1 / 16, 1.0), MAX_WIDENINGS=1, MAX_SEEDS={1: 2})

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(4, 8), nn.ReLU()]
        for _ in range(6):
            layers += [nn.Linear(8, 8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(8, 2))

    def trial_values(diagnosis: Diagnosis) -> list[tuple[object, ...]]:
        return sorted(
            (trial.variant, trial.seed, trial.lr, trial.steps, trial.train_score, trial.curve)
            for trial in diagnosis.trials
        )

    x = torch.randn(60, 4)
    problem = make_problem(build, (x, (x[:, 0] > 0).long()), lr=0.5)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (diagnose(problem, minutes=5, steps=4, jobs=jobs) for jobs in (1, 2))
    finally:
        torch.set_num_threads(num_threads)
    assert first.verdict == second.verdict and first.rates == second.rates
    assert first.scores == second.scores
    assert len(first.trials) > 8 and trial_values(first) == trial_values(second)
