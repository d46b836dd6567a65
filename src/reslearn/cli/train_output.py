"""Print the result of `reslearn train`, or the plan of --dry-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.train import Plan


def print_result(result: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print the numbers of result.json, as text or JSON."""
    import shlex

    if as_json:
        print_json({"out": str(folder), **result})
        return
    print(
        f"test error {result['test_top1_error_pct']:.2f} %, "
        f"training error {result['train_top1_error_pct']:.2f} % (clean images) "
        f"after {result['epochs']:.4g} epochs, {result['seconds']:.0f} s"
    )
    if "test_images" in result:
        print(_accuracy(result))
    if "schedule_ends" in result:
        ends = json.dumps(result["schedule_ends"], separators=(",", ":"))
        print_lines(
            "the machine was slower or faster than planned, so the schedule ended after "
            f"{result['steps']:,} steps",
            f"repeat it exactly: reslearn train --recipe {shlex.quote(f'{folder}/recipe.json')} "
            f"--set schedule.ends={ends} --out OTHER",
        )
    print_lines(folder, f"write its page: reslearn report {shlex.quote(str(folder))}")


def _accuracy(result: dict[str, Any]) -> str:
    from reslearn.evaluate import share

    num_images = result["test_images"]
    accuracy_pct = 100 - result["test_top1_error_pct"]
    interval = share(round(num_images * accuracy_pct / 100), num_images)
    text = (
        f"test accuracy {accuracy_pct:.2f} % [{interval.low_pct:.1f}, {interval.high_pct:.1f}] "
        f"on {num_images:,} images"
    )
    if result["validation_top1_error_pct"] is not None:
        text += f", validation accuracy {100 - result['validation_top1_error_pct']:.2f} %"
    return text


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what the training would need, as text or JSON."""
    from dataclasses import asdict

    if as_json:
        print_json(asdict(plan))
        return
    begin = f"resume at step {plan.begins_at_step:,}" if plan.begins_at_step else "begin"
    time = "unknown, since a step needs more memory than is free"
    if plan.minutes is not None:
        time = _duration_text(plan.minutes)
    numerics = plan.numerics
    measured = ", measured without the compilation of the real run" if numerics.compiled else ""
    if 0 < plan.timed_images < plan.batch_size:
        measured += f", estimated from steps of {plan.timed_images} images"
    print_lines(
        f"would {begin} in {plan.out}: {plan.steps:,} steps, {plan.epochs:.4g} epochs",
        f"{plan.parameters:,} parameters, {plan.macs:,} multiply-adds per image",
        f"memory in addition to torch: {plan.memory_mib:,.0f} MiB "
        f"(weights, gradients, momentum {plan.weights_mib:,.0f}; "
        f"activations {plan.activations_mib:,.0f}; images {plan.images_mib:,.0f})",
        f"time: {time} "
        f"({numerics.device}, {numerics.precision}, {numerics.threads} threads{measured})",
        *([plan.export_note] if plan.export_note else []),
        "nothing was written",
    )


def _duration_text(minutes: float) -> str:
    return f"about {minutes:.1f} minutes" if minutes < 60 else f"about {minutes / 60:,.1f} hours"
