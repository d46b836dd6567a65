"""Figure 7: residual networks respond less than plain ones, and deeper ones less still.

The responses are read from analysis/responses.json of each run. The file is written if it is
missing or of other images, provided that the weights of the run exist (`reslearn analyze`).
"""

import itertools
import math
from typing import Any

from reslearn.paper.experiment import BOTH, Experiment, Line, Result, model_name
from reslearn.paper.rules import OTHER_RUNS_RULE, is_papers_own, rises
from reslearn.paper.trained import Trained
from reslearn.report import Panels
from reslearn.report.responses import response_figures
from reslearn.runs import RunFolder, read_analysis, write_analysis
from reslearn.study.collect import Kind

EXPERIMENT = Experiment(
    name="fig7",
    text="Standard deviations of layer responses",
    section="Fig. 7",
    rule=(
        "The response of a network is the mean over its 3x3 layers of the standard deviation "
        "after batch norm, before ReLU and addition. The differences are plain minus residual at "
        "equal depth, and shallower minus deeper residual network, paired by seed. Reproduced: "
        "the 95 % interval lies above 0. Not reproduced: the interval ends at or below "
        f"0.{OTHER_RUNS_RULE}"
    ),
    kinds=BOTH,
    depths={"smoke": (8, 20), "short": (20, 56), "medium": (20, 56), "full": (20, 56)},
    extra_residual_depths={"short": (110,), "medium": (110,), "full": (110,)},
)
_NUM_IMAGES = 10_000  # training images, or all of them if there are fewer

_Network = tuple[Kind, int]


def measure(trained: Trained) -> Result:
    """Judge the differences between mean responses, and draw the responses by layer."""
    responses = {
        (kind, depth): [
            _responses(trained, model_name(kind, depth), seed) for seed in trained.seeds
        ]
        for kind in BOTH
        for depth in trained.budget.depths_of(kind)
    }
    means = {network: list(map(_mean, runs)) for network, runs in responses.items()}
    pairs: list[tuple[_Network, _Network]] = [
        (("plain", depth), ("residual", depth)) for depth in trained.budget.depths
    ]
    for shallow, deep in itertools.pairwise(trained.budget.depths_of("residual")):
        pairs.append((("residual", shallow), ("residual", deep)))
    drawn = {}
    for network, runs in responses.items():
        finished = [layers for layers in runs if layers]
        if finished:
            drawn[_label(network)] = finished
    return Result(
        lines=tuple(_line(trained, means, *pair) for pair in pairs),
        figures=(Panels(response_figures(drawn)),) if drawn else (),
        numbers={
            "mean_response": {f"{kind}-{depth}": mean for (kind, depth), mean in means.items()}
        },
    )


def _line(
    trained: Trained, means: dict[_Network, list[float]], larger: _Network, smaller: _Network
) -> Line:
    return rises(
        f"response, {_label(larger)} minus {_label(smaller)}, is above 0",
        [a - b for a, b in zip(means[larger], means[smaller], strict=True)],
        same_protocol=is_papers_own(trained),
        unit="standard deviation",
        margin=0.0,
    )


def _label(network: _Network) -> str:
    kind, depth = network
    return f"{'plain' if kind == 'plain' else 'ResNet'}-{depth}"


def _mean(layers: list[float]) -> float:
    return math.fsum(layers) / len(layers) if layers else math.nan


def _responses(trained: Trained, model: str, seed: int) -> list[float]:
    """Return the standard deviation of each 3x3 layer, in order; empty for a diverged run."""
    run = trained.run(model, seed)
    if run is None:
        return []
    result = trained.result(trained.judged_spec(model, seed))
    num_train_images = round(result["images"] / result["epochs"])
    record = read_analysis(run, "responses")
    if record is None or record["images"] != min(_NUM_IMAGES, num_train_images):
        record = _measure_responses(run, trained)
    return [float(layer["standard_deviation"]) for layer in record["layers"]]


def _measure_responses(run: RunFolder, trained: Trained) -> dict[str, Any]:
    from reslearn import analysis

    subject = analysis.Subject.open(run, data_dir=trained.data_dir)
    record: dict[str, Any] = analysis.responses_record(subject, num_images=_NUM_IMAGES)
    write_analysis(run, "responses", record)
    return record
