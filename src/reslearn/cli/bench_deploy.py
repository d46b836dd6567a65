"""`reslearn bench infer` and `reslearn bench serve`: how fast predictions are here."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from reslearn.cli.bench import WHAT, Models, import_benchmark, print_rows
from reslearn.cli.options import JsonOption, ThreadsOption

INFER_EXAMPLES = (
    "reslearn bench infer",
    "reslearn bench infer --models resnet50 --rounds 15 --json",
    "reslearn bench infer --models resnet20 --no-compile",
)
SERVE_EXAMPLES = (
    "reslearn bench serve reslearn:resnet20",
    "reslearn bench serve runs/photos photos/test/hat --clients 128",
)
_NUM_PICTURES = 16

Rounds = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of rounds. In each, everything is measured once.",
        rich_help_panel=WHAT,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        help="Also measure torch.compile, which compiles for a minute.",
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[str, typer.Argument(help="A run, a bundle, or a name such as reslearn:resnet20.")]
Pictures = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Pictures or folders of pictures; the clients send the first 16. Default: JPEG files "
        "of smooth noise with 500 x 375 pixels.",
        metavar="[PICTURES]...",
    ),
]
Clients = Annotated[
    int,
    typer.Option(min=1, max=512, help="Send from this many connections.", rich_help_panel=WHAT),
]


def infer(
    models: Models = "resnet20,resnet18,resnet50",
    rounds: Rounds = 9,
    is_compiled: Compile = True,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare our predictions with ONNX Runtime, OpenVINO and PyTorch.

    The benchmark measures the latency of one image and the throughput in batches of 16, from
    normalized tensors and from JPEG files. The libraries are measured in turns, on networks with
    random weights. torchvision's networks need `make peers`.
    """
    import torch

    bench = import_benchmark("infer")
    rows = bench.measure(
        models.split(","),
        threads=threads or torch.get_num_threads(),
        rounds=rounds,
        is_compiled=is_compiled,
    )
    print_rows(bench, rows, as_json)


def serve(
    model: Model,
    pictures: Pictures = None,
    clients: Clients = 64,
    rounds: Rounds = 5,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the server under many clients, beside servers without batches.

    Four servers are measured in turns with the same model: `reslearn serve`, the same with a batch
    size of 1, and the plainest FastAPI server with the same engine and with PyTorch. The engine is
    measured without a server, too, on the same files and on decoded pictures. The clients run on
    the same machine, and their processor time is reported separately. It takes about four minutes.
    """
    bench = import_benchmark("serve")
    with TemporaryDirectory() as folder:
        files = _files(pictures or [], Path(folder))
        rows = bench.measure(model, files, clients=clients, rounds=rounds, threads=threads)
    print_rows(bench, rows, as_json)


def _files(pictures: list[Path], folder: Path) -> list[Path]:
    """Return files of pictures: the given ones, or drawn ones in `folder`.

    Raises:
        ValueError: If there is no such picture.
    """
    from reslearn.deploy.sources import PictureSource, expand

    if not pictures:
        jpeg_file = import_benchmark("by_hand").jpeg_file
        drawn = [folder / f"{number}.jpg" for number in range(_NUM_PICTURES)]
        for number, path in enumerate(drawn):
            path.write_bytes(jpeg_file(number))
        return drawn
    sources = expand([str(path) for path in pictures])
    files = [Path(source.name) for source in sources if isinstance(source, PictureSource)]
    if not files:
        raise ValueError(f"{pictures[0]} has no pictures: name files or folders of pictures")
    return files[:_NUM_PICTURES]
