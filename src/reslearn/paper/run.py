"""Run experiments, be it claims, tables or figures: train what they need, measure, report.

There are two stages of training: the runs that choose learning rates, and the runs at the chosen
rates. Complete runs stay, so a second call in the same folder resumes where the first one stopped.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from reslearn.paper.experiment import (
    Budget,
    Evaluate,
    Experiment,
    ExperimentModule,
    Fit,
    Result,
    RunSpec,
)
from reslearn.paper.trained import Trained, first_specs
from reslearn.progress import print_progress
from reslearn.runs import RunFolder
from reslearn.study import (
    Engine,
    Job,
    StudyReport,
    grid,
    mixed_numerics,
    numerics_of,
    run_study,
    training_macs,
)


class StudyStopped(Exception):
    """A signal stopped the training. The message says how to resume.

    `exit_status` is the status that a shell reports for the signal: 128 plus its number.
    """

    def __init__(self, text: str, *, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


@dataclass(frozen=True, kw_only=True)
class Report:
    """Experiments, their results in the same order, and the runs that these rest on."""

    experiments: tuple[Experiment, ...]
    results: tuple[Result, ...]
    trained: Trained
    seconds: float

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per run that failed for a reason that is no evidence, such as a full disk."""
        failures = self.trained.failures.items()
        return tuple(f"{name_of(spec)}: {reason}" for spec, reason in failures)

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that a reader of the means must know: mixed precision, and diverged runs."""
        runs = self.trained.runs.values()
        mixed = mixed_numerics(numerics_of(run.environment) for run in runs)
        diverged = sorted(name_of(spec) for spec in self.trained.diverged)
        notes = [f"Means and differences are over {mixed}."] if mixed else []
        if diverged:
            notes.append(f"Diverged runs, without a mean in figures: {'; '.join(diverged)}.")
        return tuple(notes)

    @property
    def contradicts_paper(self) -> bool:
        """Whether a verdict is "not shown" or "not reproduced" where the paper claims something."""
        return any(
            outcome in ("not shown", "not reproduced")
            for experiment, result in zip(self.experiments, self.results, strict=True)
            for outcome in result.outcomes
            if not experiment.is_open
        )


def run_experiments(
    modules: Sequence[ExperimentModule],
    budget: Budget,
    folder: Path | str,
    *,
    engine: Engine,
    fit: Fit,
    evaluate: Evaluate | None = None,
    data_dir: Path | None = None,
    judges: Executor | None = None,
) -> Report:
    """Train the runs that the experiments need below `folder`/runs, and measure each experiment.

    A diverged run is evidence. A run that failed for another reason (no memory, a full disk) is
    none: verdicts that need it are "undecided".

    Args:
        modules: Experiments from `load_claims` or `load_exhibit`.
        engine: Runs the trainings.
        fit: `reslearn.train.fit`.
        evaluate: Evaluates runs. Only experiments on ImageNet need it.
        judges: Measures the experiments in parallel processes. By default they are measured here,
            one by one.

    Raises:
        StudyStopped: If a signal stopped the training.
    """
    start_seconds = time.monotonic()
    folder = Path(folder)
    trained = Trained(budget=budget, folder=folder, fit=fit, evaluate=evaluate, data_dir=data_dir)
    experiments = [module.EXPERIMENT for module in modules]
    is_choice = len(budget.learning_rates) > 1
    first = [first_specs(experiment, budget) for experiment in experiments]
    _train(trained, first, "choosing learning rates" if is_choice else "training", engine)
    second = [trained.judged_specs(experiment.kinds) for experiment in experiments]
    _train(trained, second, "training each network at its learning rate", engine)
    results = [
        _without_failed_runs(result, trained, [*specs, *judged_specs])
        for result, specs, judged_specs in zip(
            _measure(modules, trained, judges), first, second, strict=True
        )
    ]
    return Report(
        experiments=tuple(experiments),
        results=tuple(results),
        trained=trained,
        seconds=time.monotonic() - start_seconds,
    )


def _train(
    trained: Trained,
    specs_by_experiment: Sequence[Iterable[RunSpec]],
    stage: str,
    engine: Engine,
) -> None:
    """Run the trainings that have neither finished nor failed yet, each once."""
    already_run = {*trained.runs, *trained.diverged, *trained.failures}
    specs = dict.fromkeys(itertools.chain.from_iterable(specs_by_experiment))
    new = [spec for spec in specs if spec not in already_run]
    if not new:
        return
    folder = trained.folder / "runs"
    arguments = [] if trained.data_dir is None else ["--data-dir", str(trained.data_dir)]
    jobs = dict(zip(new, jobs_of(new, trained.budget, folder, arguments), strict=True))
    num_complete = sum(job.is_complete for job in jobs.values())
    already = f", {num_complete} of them complete already" if num_complete else ""
    print_progress(f"{stage}: {len(jobs)} runs{already}")
    by_folder = {job.folder: job for job in jobs.values()}
    study = run_study(list(by_folder.values()), folder, engine=engine)
    if study.is_interrupted:
        raise StudyStopped("\n".join(study.lines()), exit_status=study.exit_status)
    _remember(trained, jobs, study)


def _remember(trained: Trained, jobs: Mapping[RunSpec, Job], study: StudyReport) -> None:
    """Sort the runs of a stage into finished, diverged and failed ones."""
    reasons = {status.job.folder: status.reason for status in study.failed}
    for spec, job in jobs.items():
        if job.is_complete:
            run = RunFolder.open(job.folder)
            trained.runs[spec] = run
            # Over all runs checkpoints take hundreds of megabytes, and a complete run never
            # resumes.
            for checkpoint in run.checkpoints():
                checkpoint.unlink()
        elif RunFolder(job.folder).divergence is not None:
            trained.diverged.add(spec)
        else:
            trained.failures[spec] = reasons.get(job.folder, "no result")
    _check_same_images(trained.runs.values())


def _check_same_images(runs: Iterable[RunFolder]) -> None:
    """Raise ValueError if two runs name the same data but were trained on different images."""
    first_runs: dict[tuple[str, str], tuple[str, RunFolder]] = {}
    for run in runs:
        data = run.recipe.get("data", {})
        fingerprint = str(run.environment.get("data", {}).get("fingerprint", ""))
        key = (str(data.get("name")), str(data.get("size_px")))
        first_fingerprint, first_run = first_runs.setdefault(key, (fingerprint, run))
        if fingerprint != first_fingerprint:
            raise ValueError(
                f"{run.path} and {first_run.path} were trained on different images, all called "
                f"{data.get('name')} ({fingerprint} and {first_fingerprint}): use another --out"
            )


def _measure(
    modules: Sequence[ExperimentModule],
    trained: Trained,
    judges: Executor | None,
) -> list[Result]:
    """Return the results of the experiments in their order."""
    if judges is None:
        return [_measure_one(module, trained) for module in modules]
    # A module cannot be sent to another process, but its name can.
    names = [str(getattr(module, "__name__", "")) for module in modules]
    print_progress(f"judging {len(modules)} experiments")
    for spec in trained.runs:
        trained.result(spec)  # read here once, so that no process reads it again
    futures = {judges.submit(_measure_by_name, name, trained): name for name in names}
    results = {}
    for future in as_completed(futures):
        name = futures[future]
        results[name] = future.result()
        print_progress(f"judged {name.rpartition('.')[2]}")
    return [results[name] for name in names]


def _measure_by_name(name: str, trained: Trained) -> Result:
    return _measure_one(cast(ExperimentModule, importlib.import_module(name)), trained)


def _measure_one(module: ExperimentModule, trained: Trained) -> Result:
    depths, fewest = trained.budget.depths, module.EXPERIMENT.min_depths
    if module.EXPERIMENT.kinds and len(depths) < fewest:
        measured = f"the budget has {len(depths)} depths, and at least {fewest} are needed"
        return Result(outcome="not testable here", measured=measured)
    return module.measure(trained)


def _without_failed_runs(result: Result, trained: Trained, specs: Sequence[RunSpec]) -> Result:
    """Make verdicts undecided that need a failed run, which is no evidence."""
    failed = [spec for spec in dict.fromkeys(specs) if spec in trained.failures]
    if not failed:
        return result
    spec = failed[0]
    reason = trained.failures[spec]
    if result.outcome is not None:
        measured = f"run {spec.model}, seed {spec.seed} failed: {reason}"
        return Result(outcome="undecided", measured=measured, rests_on=())
    more = f" (and {len(failed) - 1} more)" if failed[1:] else ""
    because = f"a run failed: {name_of(spec)}: {reason}{more}"
    lines = [
        replace(line, outcome="undecided", because=because) if line.num_lost else line
        for line in result.lines
    ]
    return replace(result, lines=tuple(lines))


def jobs_of(
    specs: Iterable[RunSpec], budget: Budget, folder: Path, arguments: Sequence[str] = ()
) -> list[Job]:
    """Return a job below `folder` per spec. Two specs of the same recipe have the same folder."""
    jobs = []
    for spec in specs:
        (job,) = grid(
            models=[spec.model],
            seeds=[spec.seed],
            recipe=budget.recipe,
            folder=folder,
            data=budget.data,
            overrides=[(*budget.overrides, *spec.overrides)],
            cost=training_macs,
            arguments=arguments,
        )
        jobs.append(replace(job, name=name_of(spec)))
    return jobs


def name_of(spec: RunSpec) -> str:
    """Name a run for the display: network, distinguishing settings, seed and purpose."""
    parts = [spec.model]
    for setting in spec.overrides:
        if setting.startswith(("optimizer.lr=", "model.")):
            key, _, value = setting.partition("=")
            parts.append(f"{key.rpartition('.')[2]}={value}")
    parts.append(f"seed {spec.seed}")
    return " ".join([*parts, spec.why] if spec.why else parts)
