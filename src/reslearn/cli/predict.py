"""`reslearn predict`: the classes of pictures."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.model_options import InputArguments, takes_input_arguments
from reslearn.cli.options import MACHINE, OUTPUT, DeviceOption, ThreadsOption
from reslearn.cli.output import print_json
from reslearn.progress import progress_bar
from reslearn.terminal import print_lines, printable_line

if TYPE_CHECKING:
    from reslearn.deploy import Predictor
    from reslearn.deploy.predictor import PictureResult

EXAMPLES = (
    "reslearn predict reslearn:resnet20 photo.jpg",
    "reslearn predict runs/photos holiday/ 'more/**/*.png' --top 3",
    "reslearn predict model.onnx https://example.org/cat.jpg --json",
    "find . -name '*.jpg' | reslearn predict runs/photos - --csv",
    "reslearn predict torchvision:resnet50 cat.jpg --class-names imagenet.txt",
)
_WIDEST_CLASS = 40

Model = Annotated[
    str,
    typer.Argument(
        help="A run folder, a bundle, a file of `reslearn export`, a name such as "
        "reslearn:resnet20, or weights that `reslearn inspect` identifies."
    ),
]
Pictures = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, globs, http(s) addresses, or - for standard input: one picture, or "
        "names of pictures, one per line."
    ),
]
Top = Annotated[
    int, typer.Option(min=1, rich_help_panel=OUTPUT, help="Number of classes to print per picture.")
]
AsJson = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object per picture.")
]
AsCsv = Annotated[
    bool, typer.Option("--csv", rich_help_panel=OUTPUT, help="Print a table of values with commas.")
]
HeatMap = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        help="Write a PNG per picture into this folder: the regions that support the class.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, rich_help_panel=MACHINE, help="Pictures that are computed at once.")
]


@takes_input_arguments
def predict(
    model: Model,
    pictures: Pictures,
    top: Top = 1,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    heat_map: HeatMap = None,
    *,
    inputs: InputArguments,
    batch_size: BatchSize = 16,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Print the most probable classes of pictures.

    Pictures are decoded, resized and normalized as in the training of the model. Pictures that
    cannot be read are reported and left out, and the exit status is then 1.
    """
    from reslearn.deploy import Predictor

    if as_json and as_csv:
        raise ValueError("--json and --csv: choose one of them")
    use_threads(threads)
    predictor = Predictor(
        model,
        inputs.options(),
        device=choose_device(device),
        threads=threads,
        batch_size=batch_size,
    )
    num_classes = min(top, len(predictor.classes))
    printers = {(False, False): _text_printer, (True, False): _json_printer}
    make_printer = printers.get((as_json, as_csv), _csv_printer)
    print_result = make_printer(predictor.classes, num_classes)
    write_heat_map = _heat_map_writer(predictor, heat_map)
    num_results = num_unreadable = 0
    for result in _results(predictor, pictures):
        num_results += 1
        write_heat_map(result)
        print_result(result)
        if result.error is not None:
            num_unreadable += 1
            print_lines(f"reslearn: {result.error}", file=sys.stderr)
    if num_unreadable:
        print_lines(f"{num_unreadable} of {num_results} could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _heat_map_writer(predictor: Predictor, folder: Path | None) -> Callable[[PictureResult], None]:
    """Return a function that writes the heat map of a result, or nothing without a folder."""
    if folder is None:
        return lambda result: None
    from reslearn.deploy.heat_maps import HeatMapFolder, draw_heat_maps

    predictor.model.require_network()
    try:
        heat_maps = HeatMapFolder(folder)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"--heat-map {folder}: it is a file, and a folder is needed") from None

    def write(result: PictureResult) -> None:
        if result.prediction is None or result.pixels is None:
            return
        index = int(result.prediction.probabilities.argmax())
        (drawing,) = draw_heat_maps(predictor.model, [result.pixels], [index])
        heat_maps.write(result.name, drawing)

    return write


def use_threads(threads: int | None) -> None:
    """Let PyTorch compute with this number of threads. None: leave its setting."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def choose_device(device: str | None) -> str:
    """Return the device to compute on: the given one, else CUDA if available."""
    from reslearn.train import numerics

    return str(numerics.choose_device(device))


def _results(predictor: Predictor, texts: list[str]) -> Iterator[PictureResult]:
    """Yield one result for each picture, with a bar if it takes long."""
    from reslearn.deploy.sources import STDIN, expand

    total = None if STDIN in texts else sum(1 for _ in expand(texts))
    # A process may be started without a standard input, and Python then has no object for it.
    stdin = getattr(sys.stdin, "buffer", None) if STDIN in texts else None
    sources = expand(texts, stdin)
    with progress_bar("predicting", total, after_seconds=2.0) as advance:
        for result in predictor.stream(sources):
            advance(1)
            yield result


def _text_printer(classes: tuple[str, ...], num_classes: int) -> Callable[[PictureResult], None]:
    """Return a printer of lines such as " 98.2 %  shoes  photo.jpg", with the names last."""
    width = min(max(len(printable_line(name)) for name in classes), _WIDEST_CLASS)

    def print_text(result: PictureResult) -> None:
        if result.prediction is None:
            return
        columns = [
            f"{100 * probability:5.1f} %  {printable_line(label):{width}}"
            for label, probability in result.prediction.top(num_classes)
        ]
        print_lines("  ".join([*columns, result.name]))

    return print_text


def _csv_printer(classes: tuple[str, ...], num_classes: int) -> Callable[[PictureResult], None]:
    """Print the heading, and return a printer of rows. Unreadable pictures have no row."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    heading = ["picture"]
    for number in range(1, num_classes + 1):
        suffix = "" if number == 1 else f"_{number}"
        heading += [f"class{suffix}", f"probability{suffix}"]
    writer.writerow(heading)

    def print_row(result: PictureResult) -> None:
        if result.prediction is None:
            return
        row = [printable_line(result.name)]
        for label, probability in result.prediction.top(num_classes):
            row += [printable_line(label), f"{probability:.6f}"]
        writer.writerow(row)

    return print_row


def _json_printer(classes: tuple[str, ...], num_classes: int) -> Callable[[PictureResult], None]:
    """Return a printer of one JSON object per line, for unreadable pictures too."""

    def print_object(result: PictureResult) -> None:
        record: dict[str, Any] = {"picture": result.name}
        if result.prediction is None:
            print_json({**record, "error": result.error})
            return
        prediction = result.prediction
        top = [
            {"class": label, "probability": probability}
            for label, probability in prediction.top(num_classes)
        ]
        print_json({**record, **top[0], "top": top})

    return print_object
