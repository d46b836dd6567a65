"""`reslearn study DATA --depth auto`: how deep a network these data need."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.study import Engine, Job
    from reslearn.study.depth import DepthVerdict, Rung

_VALIDATION_SHARE = 0.1
_RECORD = "depth.json"


@dataclass(frozen=True, kw_only=True)
class DepthRequest:
    """The options of the command.

    Attributes:
        depth: "auto", or numbers of layers, separated by commas.
        recipe: Name or file of the recipe. None: the recipe for these data.
        minutes: Time for the whole study. None: the duration of the recipe.
        jobs: Number of runs that train at the same time. None: one per core.
    """

    data: str
    depth: str
    seeds: int
    recipe: str | None
    minutes: float | None
    margin_pct: float
    overrides: tuple[str, ...]
    data_dir: Path | None
    jobs: int | None


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """What a depth study trains. depth.json records it, so a continued study repeats it.

    Attributes:
        models: The ladder, from shallow to deep.
        recipe: Name or file of the recipe.
        data: Name or folder of the data.
        overrides: Values of the recipe that are set for all runs.
        seeds: Number of seeds.
        margin_pct: The smallest difference that matters, in points of validation error.
        validation_images: Number of validation images.
        size_px: Side of the images.
    """

    models: tuple[str, ...]
    recipe: str
    data: str
    overrides: tuple[str, ...]
    seeds: int
    margin_pct: float
    validation_images: int
    size_px: int

    def text(self) -> str:
        """Return the plan as one line of text."""
        settings = ", ".join(self.overrides)
        return (
            f"{', '.join(self.models)} on {self.data} by {self.recipe} ({settings}): "
            f"up to {self.seeds} seeds each, {self.validation_images} validation images"
        )

    def jobs(self, models: Sequence[str], seed: int, out: Path, arguments: list[str]) -> list[Job]:
        """Return the runs of one seed."""
        from reslearn.study import grid, training_macs

        return grid(
            models=models,
            seeds=[seed],
            recipe=self.recipe,
            folder=out,
            data=self.data,
            overrides=[self.overrides],
            cost=training_macs,
            arguments=arguments,
        )


def depth_study(request: DepthRequest, engine: Engine, out: Path | None, *, as_json: bool) -> None:
    """Plan a depth study, or take up the one that has begun in `out`, and run it.

    Raises:
        ValueError: If the depths or the recipe are wrong.
        DataError: If the data cannot be used.
    """
    from reslearn.train import Machine, check_recipes

    out = out or Path("studies") / f"{Path(request.data).name}-depth"
    plan, start = _recorded_plan(out), "continuing: "
    if plan is None:
        plan, start = _make_plan(request), ""
        machine = Machine(data_dir=request.data_dir)
        check_recipes([job.recipe for job in plan.jobs(plan.models, 0, out, [])], machine)
        _write_record(out, plan)
    if not as_json:
        print_lines(start + plan.text())
    _run(plan, out, engine=engine, data_dir=request.data_dir, as_json=as_json)


def _run(
    plan: DepthPlan, out: Path, *, engine: Engine, data_dir: Path | None, as_json: bool
) -> None:
    """Train the ladder seed by seed, give up hopeless networks, and print the verdict."""
    from reslearn.study import run_study
    from reslearn.study.depth import depth_verdict, survivors

    arguments = [] if data_dir is None else ["--data-dir", str(data_dir)]
    rungs: list[Rung] = []
    alive: Sequence[str] = plan.models
    jobs_by_model: dict[str, dict[int, Job]] = {model: {} for model in plan.models}
    for seed in range(plan.seeds):
        jobs = plan.jobs(alive, seed, out, arguments)
        report = run_study(jobs, out, engine=engine)
        if report.failed or report.is_interrupted:
            print_lines(*report.lines(), file=sys.stderr)
            raise typer.Exit(report.exit_status)
        for job in jobs:
            jobs_by_model[job.recipe.model.name][seed] = job
        rungs = [_rung(model, jobs_by_seed) for model, jobs_by_seed in jobs_by_model.items()]
        trained = [rung for rung in rungs if rung.model in alive]
        alive = survivors(trained, num_images=plan.validation_images, margin_pct=plan.margin_pct)
        if not as_json:
            print_lines(_round_text(seed, trained, alive, is_last=seed + 1 == plan.seeds))
    verdict = depth_verdict(rungs, margin_pct=plan.margin_pct)
    _report(plan, rungs, verdict, jobs_by_model, out, as_json=as_json)


def _rung(model: str, jobs_by_seed: dict[int, Job]) -> Rung:
    from reslearn.runs import RunFolder
    from reslearn.study.depth import Rung, depth_of

    errors = {}
    for seed, job in jobs_by_seed.items():
        run = RunFolder(job.folder)
        error = run.result["validation_top1_error_pct"] if run.is_complete else float("inf")
        errors[seed] = float(error)
    return Rung(model=model, depth=depth_of(model), errors=errors)


def _round_text(seed: int, trained: Sequence[Rung], alive: Sequence[str], *, is_last: bool) -> str:
    errors = ", ".join(f"{rung.model} {rung.mean:.2f}" for rung in trained)
    text = f"seed {seed}: mean validation error in percent: {errors}"
    given_up = [rung.model for rung in trained if rung.model not in alive]
    if given_up and not is_last:
        text += f"; given up: {', '.join(given_up)}"
    return text


def _make_plan(request: DepthRequest) -> DepthPlan:
    """Choose the ladder, the validation images and the epochs."""
    from reslearn import recipes
    from reslearn.study import available_cores
    from reslearn.study.depth import ladder
    from reslearn.train.images import load_images

    data, data_dir = request.data, request.data_dir
    recipe = request.recipe or ("digits" if data == "digits" else "cifar-short")
    overrides = list(request.overrides)
    base = recipes.load(recipe, overrides=[f"data.name={json.dumps(data)}", *overrides])
    models = ladder(base.model.name, _depths(request.depth))
    dataset = load_images(base, data_dir=data_dir, download=False)
    if dataset.validation is None:
        num_images = max(1, round(_VALIDATION_SHARE * len(dataset.train)))
        overrides.append(f"data.validation_images={num_images}")
    else:
        num_images = len(dataset.validation)
    if request.minutes is not None:
        num_parallel = request.jobs or available_cores()
        minutes = request.minutes * num_parallel / request.seeds
        epochs = _epochs_for(minutes, models, base, data_dir)
        overrides.append(f'schedule.duration="{epochs:.3g} epochs"')
    return DepthPlan(
        models=models,
        recipe=recipe,
        data=data,
        overrides=tuple(overrides),
        seeds=request.seeds,
        margin_pct=request.margin_pct,
        validation_images=num_images,
        size_px=dataset.size_px,
    )


def _depths(text: str) -> list[int] | None:
    if text == "auto":
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--depth {text}: auto or numbers of layers are needed, as in 8,20,56"
        ) from None


def _epochs_for(
    minutes: float, models: Sequence[str], base: Recipe, data_dir: Path | None
) -> float:
    """Return the epochs that let one seed of all models take `minutes` on one thread."""
    from reslearn.recipes import Length
    from reslearn.train import Machine, plan

    minutes_per_epoch = 0.0
    for model in models:
        updates = {
            "model": base.model.model_copy(update={"name": model}),
            "schedule": base.schedule.model_copy(update={"duration": Length(1, "epochs")}),
        }
        one_epoch = base.model_copy(update=updates)
        timed = plan(one_epoch, Path("unused"), Machine(threads=1, data_dir=data_dir))
        if timed.minutes is None:
            raise ValueError(f"{model} needs more memory than is free: choose smaller --depth")
        minutes_per_epoch += timed.minutes
    return minutes / minutes_per_epoch


def _recorded_plan(out: Path) -> DepthPlan | None:
    """Return the plan of a study that has begun in `out`, or None."""
    path = out / _RECORD
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))["plan"]
    for key in ("models", "overrides"):
        values[key] = tuple(values[key])
    return DepthPlan(**values)


def _write_record(out: Path, plan: DepthPlan, **content: Any) -> None:
    """Write depth.json: the plan, and at the end the numbers and the verdict."""
    from reslearn.runs import make_folder, write_atomically

    make_folder(out)
    text = json.dumps({"plan": asdict(plan), **content}, indent=2) + "\n"
    write_atomically(out / _RECORD, lambda file: file.write(text.encode()))


def _report(
    plan: DepthPlan,
    rungs: Sequence[Rung],
    verdict: DepthVerdict,
    jobs_by_model: dict[str, dict[int, Job]],
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Measure latencies, and write the page and the record."""
    from reslearn.report import write_page
    from reslearn.report.depth import depth_page
    from reslearn.study import collect

    parameters, latency_ms = _costs(jobs_by_model, plan.size_px)
    record = {
        "rungs": [asdict(rung) for rung in rungs],
        "verdict": asdict(verdict),
        "parameters": parameters,
        "latency_ms": latency_ms,
    }
    _write_record(out, plan, **record)
    page = depth_page(
        collect(out),
        rungs,
        verdict,
        parameters=parameters,
        latency_ms=latency_ms,
        margin_pct=plan.margin_pct,
        title=f"How deep for {Path(plan.data).name}?",
    )
    path = write_page(page, out)
    if as_json:
        print_json({**record, "page": str(path)})
        return
    print_lines(
        f"recommended: {verdict.smallest}. {verdict.reason}",
        f"would more depth pay? {verdict.deeper}: {verdict.deeper_reason}",
        f"page: {path}",
    )


def _costs(
    jobs_by_model: dict[str, dict[int, Job]], size_px: int
) -> tuple[dict[str, int], dict[str, float]]:
    """Return the parameters and the latency of each network that has a complete run."""
    from reslearn.evaluate.latency import latencies_ms
    from reslearn.models import build
    from reslearn.runs import RunFolder

    networks, in_channels = {}, 3
    for model, jobs in jobs_by_model.items():
        runs = [RunFolder(job.folder) for job in jobs.values() if job.is_complete]
        if runs:
            spec = runs[0].recipe["model"]
            networks[model] = build(**spec)
            in_channels = spec["in_channels"]
    parameters = {
        model: sum(parameter.numel() for parameter in network.parameters())
        for model, network in networks.items()
    }
    return parameters, latencies_ms(networks, (in_channels, size_px, size_px))
