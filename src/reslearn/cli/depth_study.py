"""`reslearn study DATA --depth auto`: how deep a network these data need."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from reslearn.cli.depth_plan import (
    DepthPlan,
    DepthRequest,
    make_plan,
    recorded_plan,
    write_record,
)
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from torch import nn

    from reslearn.study import Engine, Job
    from reslearn.study.depth import DepthVerdict, Rung


_FEWEST_SEEDS = 2
"""One seed has no interval, so a study without time trains two."""


def depth_study(request: DepthRequest, engine: Engine, out: Path | None, *, as_json: bool) -> None:
    """Plan a depth study, or take up the one that has begun in `out`, and run it.

    Raises:
        ValueError: If the depths or the recipe are wrong.
        DataError: If the data cannot be used.
    """
    from reslearn.train import Machine, check_recipes

    out = out or Path("studies") / f"{Path(request.data).name}-depth"
    plan = recorded_plan(out)
    if plan is None:
        plan = make_plan(request)
        machine = Machine(data_dir=request.data_dir)
        check_recipes([job.recipe for job in plan.jobs(plan.models, 0, out, [])], machine)
        write_record(out, plan)
    else:
        print_lines(
            f"{out} holds a study, which continues as it was planned. For other depths, seeds or "
            "minutes choose another --out.",
            file=sys.stderr,
        )
    if not as_json:
        print_lines(plan.text())
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
    began_at = time.monotonic()
    for seed in range(plan.seeds):
        if not has_time(plan, time.monotonic() - began_at, seed):
            print_lines(_no_time_text(plan, seed), file=sys.stderr)
            break
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
            print_lines(_time_text(time.monotonic() - began_at, seed + 1, plan.seeds))
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


def has_time(plan: DepthPlan, seconds: float, num_seeds: int) -> bool:
    """Return whether another seed fits into the minutes. Two seeds are always trained."""
    if plan.minutes is None or num_seeds < _FEWEST_SEEDS:
        return True
    return seconds * (num_seeds + 1) / num_seeds <= 60 * plan.minutes


def _no_time_text(plan: DepthPlan, num_seeds: int) -> str:
    return (
        f"reslearn: {num_seeds} of {plan.seeds} seeds fit into {plan.minutes:g} minutes; repeat "
        "the command to train the next one"
    )


def _time_text(seconds: float, num_seeds: int, all_seeds: int) -> str:
    """Say how long the seeds took. A slower machine than planned shows here, after one seed."""
    minutes_left = seconds / 60 * (all_seeds - num_seeds) / num_seeds
    text = f"{num_seeds} of {all_seeds} seeds after {seconds / 60:.1f} minutes"
    return f"{text}; at most {minutes_left:.0f} more" if minutes_left else text


def _images_text(rungs: Sequence[Rung], best: str, num_images: int) -> str:
    """Say what the intervals over seeds leave out: other images."""
    from reslearn.study import Interval, number_text, proportion

    (error_pct,) = (rung.mean for rung in rungs if rung.model == best)
    interval = proportion(round(num_images * error_pct / 100), num_images)
    percent = Interval(100 * interval.low, 100 * interval.high)
    return (
        f"these intervals are over seeds, on the same {num_images:,} validation images; for other "
        f"images of this kind, the error of {best} is "
        f"{number_text(error_pct, digits=1, unit='%', interval=percent)}"
    )


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
    write_record(out, plan, **record)
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
        _images_text(rungs, verdict.best, plan.validation_images),
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
    parameters = {model: _count_parameters(network) for model, network in networks.items()}
    return parameters, latencies_ms(networks, (in_channels, size_px, size_px))


def _count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
