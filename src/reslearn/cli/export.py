"""`reslearn export`: write a network for another runtime, or its weights for another project.

Forms for runtimes (onnx, openvino, torch-export, int8) are in `cli/export_forms.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslearn.cli import export_forms
from reslearn.cli.export_forms import GATE
from reslearn.cli.model_options import WEIGHTS, InputArguments, takes_input_arguments
from reslearn.cli.options import OUTPUT, DataDirOption, JsonOption, ThreadsOption
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.interop.as_bundle import InputOptions

EXAMPLES = (
    "reslearn export runs/photos --to onnx --out photos.onnx",
    "reslearn export runs/photos --to onnx,openvino,int8 --out photos",
    "reslearn export reslearn:resnet20 --to openvino --input crop --data cifar10 --out net.xml",
    "reslearn export runs/pets --to torchvision --out resnet50.pth",
    "reslearn export resnet50-0676ba61.pth --to hf --out model.safetensors",
    "reslearn export checkpoint.pth --entry state_dict_ema --to torchvision --out average.pth",
    "reslearn export detector.pth --partial --stride-in 1x1 --to caffe --out backbone.caffemodel",
)
_NUM_LISTED = 6


Source = Annotated[
    str,
    typer.Argument(
        help="A run folder, a bundle (model.safetensors), a name such as reslearn:resnet20, or a "
        "file or folder that `reslearn inspect` identifies."
    ),
]
To = Annotated[
    str,
    typer.Option(
        help="A form for a runtime: onnx, openvino, torch-export or int8; several with commas. Or "
        "a dialect: names and layout of a project (docs/weights.md lists them).",
        rich_help_panel=OUTPUT,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="The file to write. The suffix selects the format of a dialect. For several forms: "
        "the path without suffix.",
        rich_help_panel=OUTPUT,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Leave out tensors that are not part of the network, such as a detector's heads.",
        rich_help_panel=WEIGHTS,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file.", rich_help_panel=OUTPUT)
]
Input = Annotated[
    export_forms.InputOption,
    typer.Option(
        "--input",
        help="What the file takes: an image (uint8, any size), a crop (uint8, as the network sees "
        "it), or a tensor (float32, normalized).",
        rich_help_panel=OUTPUT,
    ),
]
LicenseText = Annotated[
    str | None,
    typer.Option("--license", help="License of the weights, for the file.", rich_help_panel=OUTPUT),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Images for the parity gate: a data set or a folder. Default: the data of the run.",
        rich_help_panel=GATE,
    ),
]
ImageSetName = Annotated[
    str | None,
    typer.Option(
        "--images",
        help="Compare on validation, test or train images. Default: validation, or test if there "
        "are none.",
        rich_help_panel=GATE,
    ),
]
NumImages = Annotated[
    int, typer.Option(min=1, help="Largest number of images to compare.", rich_help_panel=GATE)
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Largest allowed difference of a probability. Default: 0.05 for an image, 0.001 for "
        "a crop or a tensor, 0.25 for int8.",
        rich_help_panel=GATE,
    ),
]


@takes_input_arguments
def export(
    source: Source,
    to: To,
    out: Out,
    input_kind: Input = export_forms.InputOption.image,
    license_text: LicenseText = None,
    force: Force = False,
    as_json: JsonOption = False,
    data: Data = None,
    images: ImageSetName = None,
    num_images: NumImages = 500,
    tolerance: Tolerance = None,
    data_dir: DataDirOption = None,
    threads: ThreadsOption = None,
    *,
    inputs: InputArguments,
    partial: Partial = False,
) -> None:
    """Write a network for another runtime, or its weights for another project.

    A form (onnx, openvino, torch-export, int8) contains the preprocessing and returns
    probabilities. A parity gate compares its answers with the network on real images. If they do
    not agree, nothing is written, and the exit status is 1.

    A file in a dialect holds weights for the strict loader of a project; a backbone has no head. A
    network that the project does not have, or would compute differently, is refused.
    """
    forms = export_forms.forms_of(to)
    if not forms:
        _export_weights(source, to, out, inputs.options(), partial=partial, force=force)
        return
    if partial:
        raise ValueError("--partial is for the weights of a dialect: leave it out")
    report = export_forms.export_through_gate(
        source,
        export_forms.targets(forms, out, force=force),
        inputs.options(),
        export_forms.GateOptions(data, images, num_images, tolerance, data_dir, threads),
        input_kind=input_kind,
        license_text=license_text,
    )
    export_forms.print_report(report, as_json=as_json)
    if not report.is_written:
        raise typer.Exit(1)


def _export_weights(
    source: str,
    to: str,
    out: Path,
    options: InputOptions,
    *,
    partial: bool,
    force: bool,
) -> None:
    from reslearn.interop import dialect_named, identify, load_weights, write_weights
    from reslearn.interop.stored import abbreviate
    from reslearn.models import build

    try:
        dialect = dialect_named(to)
    except ValueError as error:
        raise ValueError(f"{error}; forms are {', '.join(export_forms.FORMS)}") from None
    if out.exists() and not force:
        raise ValueError(f"{out} already exists: choose another --out, or pass --force")
    path = _weights_of(source)
    identity = identify(path, entry=options.entry).with_switches(**options.chosen_switches)
    net = build(**identity.spec, num_classes=identity.num_classes or 1)
    report = load_weights(net, identity, partial=partial)
    missing = [name for name in report.left_initialized if not name.startswith("head.fc.")]
    if missing:
        raise ValueError(
            f"{path} does not hold {missing[0]}, so random numbers would be written for it"
        )
    with_head = identity.num_classes is not None and dialect.has_head
    write_weights(net, out, dialect, with_head=with_head)
    head = "with its head" if with_head else "without a head"
    print_lines(f"{out}: {net.name} in dialect {dialect.name}, {head}")
    if report.unused:
        print_lines(f"left out: {abbreviate(report.unused, _NUM_LISTED)}")
    for note in dialect.notes:
        print_lines(note)


def _weights_of(source: str) -> str | Path:
    """Return the source of the weights. For a run it is the bundle, once the run is checked."""
    from reslearn.interop.pretrained import weights_file_in
    from reslearn.runs import RunFolder, check_weights

    folder = Path(source)
    is_run = RunFolder(folder).exists() or weights_file_in(folder) is None
    if not (folder.is_dir() and is_run):
        return source
    run = RunFolder.open(folder)
    run.check_complete()
    if run.bundle_path.is_file():
        check_weights(run, run.bundle_path)
    return run.bundle_path
