"""Figure 7: standard deviations of layer responses; residual nets respond less than plain ones, deeper residual nets less still.

Read off analysis/responses.json of each run, which is written where it is missing or of other images and the weights are there
(`reslearn analyze`).
"""

import itertools
import math
from typing import Any

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import (
    OTHER_RUNS_RULE,
    Depths,
    Exhibit,
    Line,
    Measured,
    is_papers_own,
    rises,
)
from reslearn.report import Panels
from reslearn.report.responses import response_figures
from reslearn.runs import RunFolder

EXHIBIT = Exhibit(
    name="fig7",
    title="Standard deviations of layer responses",
    section="Fig. 7",
    data="CIFAR-10",
    rule=(
        "A net's response is the mean over its 3x3 layers of the standard deviation after batch norm, before ReLU and addition. "
        "Reproduced: the difference (plain minus residual at equal depth; shallower minus deeper residual net), paired by seed, has a 95 % "
        f"interval above 0. Not reproduced: the interval ends at or below 0.{OTHER_RUNS_RULE}"
    ),
)
_NUM_IMAGES = 10_000  # of training images, or all
DEPTHS = {
    "smoke": Depths(both=(8, 20)),
    **dict.fromkeys(("short", "medium"), Depths(both=(20, 56), residual=(110,))),
    "full": Depths(both=(20, 56), residual=(110,)),
}


def conditions(budget: Budget) -> list[RunSpec]:
    """Both families at the paper's learning rate."""
    return protocol.fixed_conditions(budget, protocol.BOTH)


def measure(evidence: Runs) -> Measured:
    """Each net's responses, by layer and in the mean."""
    layers = {
        (kind, depth): [
            _responses(evidence, protocol.model_name(kind, depth), seed)
            for seed in evidence.budget.judge_seeds
        ]
        for kind in protocol.BOTH
        for depth in protocol.depths(evidence.budget, kind)
    }
    mean = {
        net: [math.fsum(one) / len(one) if one else math.nan for one in seeds]
        for net, seeds in layers.items()
    }
    lines: list[Line] = []

    def compare(what: str, larger: Any, smaller: Any) -> None:
        differences = [a - b for a, b in zip(mean[larger], mean[smaller], strict=True)]
        own = is_papers_own(evidence)
        lines.append(
            rises(
                f"{what}, is above 0",
                differences,
                same_protocol=own,
                unit="standard deviation",
                margin=0.0,
            )
        )

    for depth in evidence.budget.depths:
        compare(
            f"response, plain-{depth} minus ResNet-{depth}", ("plain", depth), ("residual", depth)
        )
    at = protocol.depths(evidence.budget, "residual")
    for shallow, deep in itertools.pairwise(at):
        compare(
            f"response, ResNet-{shallow} minus ResNet-{deep}",
            ("residual", shallow),
            ("residual", deep),
        )
    shown = {net: [one for one in seeds if one] for net, seeds in layers.items()}
    drawn = {
        f"{'plain' if kind == 'plain' else 'ResNet'}-{depth}": seeds
        for (kind, depth), seeds in shown.items()
        if seeds
    }
    numbers = {f"{kind}-{depth}": values for (kind, depth), values in mean.items()}
    return Measured(
        lines=tuple(lines),
        figures=(Panels(response_figures(drawn)),) if drawn else (),
        numbers={"mean_response": numbers},
    )


def _responses(evidence: Runs, model: str, seed: int) -> list[float]:
    """Standard deviation of each 3x3 layer, in order; empty where the run diverged."""
    run = protocol.judged_run(evidence, model, seed)
    if run is None:
        return []
    record, result = run.analysis("responses"), run.result
    if record is None or record["images"] != min(
        _NUM_IMAGES, round(result["images"] / result["epochs"])
    ):
        record = _look(run, evidence)
    return [float(layer["standard_deviation"]) for layer in record["layers"]]


def _look(run: RunFolder, evidence: Runs) -> dict[str, Any]:
    from reslearn import analysis

    subject = analysis.Subject.open(run, data_dir=evidence.data_dir)
    record: dict[str, Any] = analysis.responses_record(subject, num_images=_NUM_IMAGES)
    analysis.write_analysis(run, "responses", record)
    return record
