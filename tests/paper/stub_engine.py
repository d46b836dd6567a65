"""Stand-ins for trainings: an engine that writes run folders at once, and runs in memory."""

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reslearn import paper
from reslearn.paper.experiment import model_name
from reslearn.paper.trained import TEST_ERROR, TRAINING_ERROR, TRAINING_LOSS, Trained
from reslearn.runs import RunFolder, write_analysis
from reslearn.study import Job
from reslearn.study.engine import JobStatus

# Training error in percent at the best learning rate.
ERRORS = {
    "plain8": 2.0,
    "plain20": 9.0,
    "plain56": 60.0,
    "resnet8": 3.0,
    "resnet20": 1.0,
    "resnet56": 0.5,
    "plain18": 28.0,
    "plain34": 30.0,
    "resnet18": 28.0,
    "resnet34": 25.0,
}
BEST_RATES = {"plain8": 0.1, "plain20": 0.03, "plain56": 0.03}


class StubEngine:
    """Writes the files of a training, weights aside.

    Args:
        broken: Reasons of runs without a result, by a part of their name or folder. A reason that
            begins with "the loss is" makes a diverged run, any other reason a failed one.
        stop_after: Number of runs after which a signal stops the study.
        best_rates: A network at another learning rate than its best has 10 points more error.
    """

    def __init__(
        self,
        broken: Mapping[str, str] | None = None,
        *,
        stop_after: int | None = None,
        best_rates: Mapping[str, float] | None = None,
    ) -> None:
        self.names: list[str] = []
        self.broken = broken or {}
        self.stop_after = stop_after
        self.best_rates = best_rates or {}

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        return [self._run(job) for job in jobs]

    def _run(self, job: Job) -> JobStatus:
        if self.stop_after is not None and len(self.names) >= self.stop_after:
            return JobStatus(job=job, status="interrupted", signal_number=signal.SIGTERM)
        for part, reason in self.broken.items():
            if part in job.name or part in job.folder.name:
                if reason.startswith("the loss is"):
                    run = RunFolder.create(job.folder, job.recipe.to_dict(), {})
                    run.finish_diverged(20, reason)
                    return JobStatus(job=job, status="diverged", reason=reason)
                return JobStatus(job=job, status="failed", reason=reason)
        self.names.append(job.name)
        self._write(job)
        return JobStatus(job=job, status="complete")

    def _write(self, job: Job) -> None:
        recipe = job.recipe.to_dict()
        recipe["model"]["num_classes"] = 10
        model, seed = recipe["model"]["name"], recipe["seed"]
        rate = recipe["optimizer"]["lr"]
        error = ERRORS[model] + 0.1 * seed + (10 if rate != self.best_rates.get(model, rate) else 0)
        error += 0.5 if recipe["optimizer"]["nesterov"] else 0.0
        environment = {"numerics": {"threads": 1}, "versions": {"torch": "2"}}
        run = RunFolder.create(job.folder, recipe, environment)
        is_residual = model.startswith("resnet")
        for step in range(20, 541, 40):
            loss = 2.3 - (2.2 if is_residual else 1.0) * step / 540
            curve_error = min(100.0, error + 540 - step)
            record = {"step": step, "epoch": step / 45, "loss": loss, "top1_error_pct": curve_error}
            run.append_metrics({"kind": "train", **record})
            run.append_metrics({"kind": "test", **record})
        losses = {TRAINING_LOSS: error / 40, "seconds": 1.0, "images": 150, "epochs": 3.0}
        run.finish({TRAINING_ERROR: error, TEST_ERROR: error, **losses})
        depth = int("".join(filter(str.isdigit, model)))
        response = (0.5 if is_residual else 1.0) - 0.001 * depth + 0.01 * seed
        layers = [{"standard_deviation": response}, {"standard_deviation": response / 2}]
        write_analysis(run, "responses", {"images": 50, "layers": layers})


def no_fit(*arguments: Any, **options: Any) -> list[Any]:
    """Stand in for `reslearn.train.fit` where nothing is fitted."""
    raise AssertionError("nothing is to be fitted")


Curves = Sequence[Sequence[float]]


def trained_in_memory(
    depths: Sequence[int],
    *,
    plain: Curves = (),
    residual: Curves = (),
    plain_test: Curves = (),
) -> Trained:
    """Return finished runs that exist in memory only.

    Args:
        plain: Errors [seeds][depths] in percent, of training and of test; nan for a diverged run.
        residual: The same for the residual networks.
        plain_test: Test errors of the plain networks, if they differ from their training errors.
    """
    num_seeds = max(len(plain), len(residual))
    budget = replace(
        paper.demo(),
        depths=tuple(depths),
        learning_rates=(0.1,),
        judge_seeds=tuple(range(num_seeds)),
    )
    trained = Trained(budget=budget, folder=Path("none"), fit=no_fit)
    for kind, training, test in (
        ("plain", plain, plain_test or plain),
        ("residual", residual, residual),
    ):
        for seed, (training_curve, test_curve) in enumerate(zip(training, test, strict=True)):
            for depth, error, test_error in zip(depths, training_curve, test_curve, strict=True):
                spec = trained.judged_spec(model_name(kind, depth), seed)  # type: ignore[arg-type]
                if math.isnan(error):
                    trained.diverged.add(spec)
                    continue
                trained.runs[spec] = RunFolder(Path("none"))
                trained._results[spec] = {TRAINING_ERROR: error, TEST_ERROR: test_error}
    return trained


def around(value: float) -> list[float]:
    """Return three seeds with a mean of `value` and an interval of +-0.003."""
    return [value - 0.001, value, value + 0.001]
