"""`reslearn evaluate`: the detailed metrics of one network, or the error of several together."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.model_options import InputArguments, takes_input_arguments
from reslearn.cli.options import MACHINE, DataDirOption, DeviceOption, JsonOption
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.evaluate import Metrics
    from reslearn.interop.as_bundle import InputOptions
    from reslearn.study import Interval
    from reslearn.train import Machine
    from reslearn.train.input_trial import InputTrial

EXAMPLES = (
    "reslearn evaluate runs/digits",
    "reslearn evaluate runs/photos --images validation --views",
    "reslearn evaluate runs/digits/model.safetensors digits --images train --json",
    "reslearn evaluate runs/one runs/two photos --protocol ten-crop",
    "reslearn evaluate resnet20-12fca82f.th cifar10",
)

_PROTOCOL = "Protocol"


class EvaluationProtocol(StrEnum):
    """The views of an image whose scores are averaged."""

    single = "single"
    ten_crop = "ten-crop"
    multi_scale = "multi-scale"


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Run folders, bundles, names such as reslearn:resnet20, weight files or folders of "
        "save_pretrained; then the data. Default: the run's data."
    ),
]


ImagesOption = Annotated[
    str,
    typer.Option(rich_help_panel=_PROTOCOL, help="Evaluate on train, validation or test images."),
]
ProtocolOption = Annotated[
    EvaluationProtocol,
    typer.Option(
        rich_help_panel=_PROTOCOL,
        help="Average one view of each image, ten crops, or the whole image at five scales.",
    ),
]
ViewsOption = Annotated[
    bool | None,
    typer.Option(
        "--views/--no-views",
        rich_help_panel=_PROTOCOL,
        help="Measure ten crops and five scales of one network too. Default: each that takes about "
        "a minute at most.",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Compute in fp32 or bf16. Default: as in the run, fp32 for a bundle.",
    ),
]


@takes_input_arguments
def evaluate(
    sources: Sources,
    images: ImagesOption = "test",
    protocol: ProtocolOption = EvaluationProtocol.single,
    views: ViewsOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    data_dir: DataDirOption = None,
    *,
    inputs: InputArguments,
    as_json: JsonOption = False,
) -> None:
    """Measure how good trained networks are, on clean images.

    For one network: accuracy, precision, recall and F1 of each class, confusions, calibration, the
    most confident mistakes, suspected labels, and robustness to small changes. The evaluation of a
    run on its own data is saved as analysis/evaluation.json, and `reslearn report RUN` draws it.

    A file of another project may leave open what its network computes (zeros of option A, stride),
    mean and deviation, and the size of images. Then all choices are tried on training images, and
    the best is evaluated. Options such as --mean, --size and --set say it instead.

    With several networks, or another protocol than a single view, their softmax scores are
    averaged, and only loss, accuracy and error are printed.

    Ten-crop cuts the four corners and the center at a shorter side of 256, and mirrors them.
    Multi-scale evaluates whole images and their mirror images at shorter sides of 224, 256, 384,
    480 and 640. These lengths are the paper's for crops of 224 pixels, and scale in proportion.
    Both need a folder of images.

    The 95 % intervals are over images: they describe other samples of images, not other seeds.
    Choose models on validation images, and evaluate the test images once.
    """
    from reslearn.cli.detailed_evaluation import evaluate_in_detail, print_evaluation
    from reslearn.train import Machine, evaluate_bundle
    from reslearn.train.evaluate_run import check_options

    networks, data = _split_sources(sources)
    machine = Machine(device=device, data_dir=data_dir)
    check_options(images, precision)
    is_detailed = len(networks) == 1 and protocol == EvaluationProtocol.single
    if views is not None and not is_detailed:
        raise ValueError("--views and --no-views need one network and --protocol single")
    options, trials = _decide(networks, data, machine, inputs.options(), as_json=as_json)
    choices: Any = {"images": images, "precision": precision}
    record: dict[str, Any] = {}
    if is_detailed:
        metrics, record, path = evaluate_in_detail(
            networks[0], data, machine, **choices, options=options[0], with_views=views
        )
    else:
        choices |= {"protocol": protocol.value, "options": options}
        metrics = evaluate_bundle(networks, data, machine, **choices)
    if as_json:
        trial_record = {"open_choices": [trial.record() for trial in trials]}
        _print_json(metrics, record | trial_record, protocol, len(networks))
        return
    print_lines(_summary(metrics, images, protocol, len(networks)))
    if record:
        print_evaluation(record, path)


def _decide(
    networks: list[str],
    data: str | None,
    machine: Machine,
    user_options: InputOptions,
    *,
    as_json: bool,
) -> tuple[list[InputOptions], list[InputTrial]]:
    """Try what the file of each network leaves open, and print the trials."""
    from reslearn.train.input_trial import decide_open_input

    options, trials = [], []
    for network in networks:
        decided_options, trial = decide_open_input(network, data, machine, user_options)
        options.append(decided_options)
        if trial is not None:
            trials.append(trial)
            if not as_json:
                print_lines(*trial.lines(), "")
    return options, trials


def _split_sources(sources: list[str]) -> tuple[list[str], str | None]:
    """Separate the networks from the data, which may follow them."""
    from reslearn.train import is_source

    first, *following = sources
    networks = [first]
    for number, text in enumerate(following, 1):
        if is_source(text):
            networks.append(text)
        elif number == len(following):
            return networks, text
        else:
            raise ValueError(
                f"{text} is not a run folder or bundle; the data (one name or folder) come last"
            )
    return networks, None


def _summary(metrics: Metrics, images: str, protocol: EvaluationProtocol, num_networks: int) -> str:
    """Return accuracy and error beside each other; top-5 only among more than ten classes."""
    num_images = metrics.num_images
    texts = [
        f"{images} accuracy {_with_interval(100 - metrics.top1_error_pct, num_images)}",
        f"error {_with_interval(metrics.top1_error_pct, num_images)}",
    ]
    if metrics.top5_error_pct is not None and metrics.num_classes > 10:
        texts.append(f"top-5 error {_with_interval(metrics.top5_error_pct, num_images)}")
    line = f"{', '.join(texts)}, loss {metrics.loss:.4f} on {num_images} images"
    if protocol != EvaluationProtocol.single or num_networks > 1:
        plural = "s" if num_networks > 1 else ""
        line += f" ({protocol.value}, {num_networks} network{plural})"
    return line


def _print_json(
    metrics: Metrics, detailed: dict[str, Any], protocol: EvaluationProtocol, num_networks: int
) -> None:
    from dataclasses import asdict

    record = {**detailed, **asdict(metrics)}
    for name, error_pct in (("top1", metrics.top1_error_pct), ("top5", metrics.top5_error_pct)):
        interval = None if error_pct is None else _interval_pct(error_pct, metrics.num_images)
        record[f"{name}_error_interval_pct"] = interval
    print_json({**record, "protocol": protocol.value, "networks": num_networks})


def _interval_pct(error_pct: float, num_images: int) -> Interval:
    from reslearn.study import proportion

    return proportion(round(error_pct * num_images / 100), num_images).scaled_by(100)


def _with_interval(error_pct: float, num_images: int) -> str:
    from reslearn.study import number_text

    return number_text(error_pct, unit="%", interval=_interval_pct(error_pct, num_images))
