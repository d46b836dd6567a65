"""`reslearn inspect MODEL|FILE|FOLDER`: a network, a weight file, or a folder of images.

A network is counted without weights, data or a forward pass, as in Tables 1 and 6 of the paper.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.model_options import switches_of
from reslearn.cli.options import JsonOption
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines, safe_console

if TYPE_CHECKING:
    from reslearn.models import Complexity

EXAMPLES = (
    "reslearn inspect resnet56",
    "reslearn inspect resnet34 --shortcut C",
    "reslearn inspect resnet50 --stride-in 3x3 --json",
    "reslearn inspect resnet50-11ad3fa6.pth",
    "reslearn inspect photos --html photos.html",
)
_NETWORK = "Network"
_FILES = "Weight files"
_IMAGES = "Folders of images"


def _network_option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_NETWORK)


Source = Annotated[
    str,
    typer.Argument(
        help="The name of a network (see `reslearn list models`), a weight file, a published "
        "name such as torchvision:resnet50, a URL, a folder of images, or a CSV file of path and "
        "label."
    ),
]
Shortcut = Annotated[
    str | None,
    _network_option("Shortcut option A, B or C. The default is B for bottleneck networks, else A."),
]
ZeroPad = Annotated[str, _network_option("Where option A adds zero channels: append or split.")]
Subsample = Annotated[str, _network_option("How option A halves feature maps: slice or average.")]
StrideIn = Annotated[
    str | None,
    _network_option("Which convolution of a bottleneck strides: 1x1 (as in the paper) or 3x3."),
]
Normalize = Annotated[
    bool,
    _network_option(
        "Use batch normalization. Without it, convolutions have biases.",
        "--normalize/--no-normalize",
    ),
]
Overrides = Annotated[
    list[str] | None,
    _network_option("Set any switch, as in model.groups=32. The option may be repeated.", "--set"),
]
NumClasses = Annotated[
    int | None,
    _network_option(
        "Number of classes. The default is 10 for CIFAR networks and 1000 for ImageNet networks."
    ),
]
InChannels = Annotated[int, _network_option("Number of channels of an image.")]
SizePx = Annotated[
    int | None,
    _network_option(
        "Side of an image in pixels. The default is the image size of a bundle, else 32 for CIFAR "
        "networks and 224 for ImageNet networks."
    ),
]
Entry = Annotated[
    str | None,
    typer.Option(
        help="Which network to inspect if the file holds several: a table such as "
        "state_dict_ema, or the beginning of names such as state_dict:module.encoder_q.",
        rich_help_panel=_FILES,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        help="Write the survey with thumbnails to this page, which opens offline.",
        rich_help_panel=_IMAGES,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Examine images in this many processes. Default: one per core.",
        rich_help_panel=_IMAGES,
    ),
]


def inspect(
    context: typer.Context,
    source: Source,
    shortcut: Shortcut = None,
    zero_pad: ZeroPad = "append",
    subsample: Subsample = "slice",
    stride_in: StrideIn = None,
    normalize: Normalize = True,
    overrides: Overrides = None,
    num_classes: NumClasses = None,
    in_channels: InChannels = 3,
    size_px: SizePx = None,
    entry: Entry = None,
    html: Html = None,
    workers: Workers = None,
    json: JsonOption = False,
) -> None:
    """Inspect a network, a weight file, or a folder of images before training.

    For a network, print the output shape, parameters and multiply-adds of each layer for one image.
    Counting needs no memory for weights, so even resnet1202 is quick. Multiply-adds (MACs, the
    paper's "FLOPs") are counted for convolutions and fully connected layers.

    For a weight file, print its project, its network, and values that are not finite.
    Formats are torch.save, safetensors, Detectron2's .pkl, .caffemodel, ONNX and Keras' .h5.
    Nothing in the file is run.

    For a folder of images or a CSV file, decode every image and print the problems, the most
    serious first. Examples are unreadable files, copies across splits and classes, missing classes
    and odd formats. Advice on input size, stem and splits follows. The exit status is 1 if there
    is an error, such as a test image that is also a training image.
    """
    is_images = _is_images(source)
    _refuse_options(context, source, is_images=is_images)
    if is_images:
        from reslearn.cli.inspect_folder import inspect_folder

        if not inspect_folder(Path(source), html=html, workers=workers, as_json=json):
            raise typer.Exit(1)
    elif _is_file(source):
        _inspect_file(source, entry=entry, size_px=size_px, as_json=json)
    else:
        switches = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "shortcut": shortcut,
            "zero_pad": zero_pad,
            "subsample": subsample,
            "stride_in": stride_in,
            "normalize": normalize,
            **switches_of(overrides or []),
        }
        _inspect_network(source, switches, size_px=size_px, as_json=json)


def _inspect_network(
    model: str, switches: dict[str, Any], *, size_px: int | None, as_json: bool
) -> None:
    from reslearn.models import complexity
    from reslearn.models.names import architecture_of
    from reslearn.switches import check_count

    architecture = architecture_of(model)
    is_imagenet = architecture is not None and architecture.switches["stem"] != "cifar"
    if size_px is None:
        size_px = 224 if is_imagenet else 32
    if size_px < 1:
        raise ValueError(f"--size-px {size_px}: an image has a side of at least 1 pixel")
    if switches["num_classes"] is None:
        switches = switches | {"num_classes": 1000 if is_imagenet else 10}
    check_count("num_classes", switches["num_classes"])
    net, spec = _build_without_weights(model, switches)
    cost = complexity(net, (switches["in_channels"], size_px, size_px))
    if as_json:
        _print_json(spec, cost, size_px)
    else:
        _print_table(spec, cost, size_px)


def _is_images(model: str) -> bool:
    """Return whether `model` is a folder of images or a table of them, not a network or weights."""
    from reslearn.interop.pretrained import has_name, weights_file_in
    from reslearn.models.names import architecture_of

    if has_name(model):
        return False
    path = Path(model)
    is_weights = weights_file_in(path) is not None or architecture_of(model) is not None
    return (path.is_dir() and not is_weights) or path.suffix.lower() in {".csv", ".tsv"}


def _refuse_options(context: typer.Context, model: str, *, is_images: bool) -> None:
    """Raise ValueError if an option of folders was given for something else, or vice versa."""
    for parameter in context.command.params:
        panel = getattr(parameter, "rich_help_panel", None)
        source = context.get_parameter_source(parameter.name or "")
        is_wrong = panel in ((_NETWORK, _FILES) if is_images else (_IMAGES,))
        if is_wrong and source is not None and source.name == "COMMANDLINE":
            subject = "a folder of images" if is_images else "no folder of images"
            option = parameter.opts[0]
            raise ValueError(f"{model} is {subject}, but {option} is for: {str(panel).lower()}")


def _is_file(model: str) -> bool:
    """Return whether `model` means weights. Names of networks have no dot or slash."""
    from reslearn.interop.pretrained import has_name, hub_hint, weights_file_in

    if has_name(model):
        return True
    path = Path(model)
    if not path.exists() and ("/" in model or "." in model):
        raise ValueError(
            f"{model}: there is no such file; pass a folder of images, a weight file, a bundle, "
            "torchvision:NAME, timm:NAME, an address, or a name of `reslearn list models`"
            f"{hub_hint(model)}"
        )
    is_folder = weights_file_in(path) is not None
    return path.is_file() or is_folder or "/" in model or "." in model


def _inspect_file(source: str, *, entry: str | None, size_px: int | None, as_json: bool) -> None:
    from reslearn.interop import inspect_file

    inspection = inspect_file(source, entry=entry, size_px=size_px)
    if as_json:
        print_json(inspection.as_json(), indent=2)
    else:
        print_lines(*inspection.lines())


def _build_without_weights(model: str, switches: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a network on the meta device, and its spec."""
    import torch

    from reslearn.models import build

    with torch.device("meta"):
        net = build(model, **switches)
    return net, dict(net.spec)


def _print_json(spec: dict[str, Any], cost: "Complexity", size_px: int) -> None:
    from dataclasses import asdict

    print_json({"model": spec, "size_px": size_px, **asdict(cost)}, indent=2)


def _print_table(spec: dict[str, Any], cost: "Complexity", size_px: int) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind", "output shape"):
        table.add_column(heading)
    for heading in ("parameters", "MACs"):
        table.add_column(heading, justify="right")
    for layer in cost.layers:
        shape = " x ".join(map(str, layer.output_shape))
        counts = [f"{count:,}" if count else "" for count in (layer.parameters, layer.macs)]
        table.add_row(layer.name, layer.kind, shape, *counts)
    console = safe_console(soft_wrap=True)
    console.print(table)
    shortcut = f", shortcut {spec['shortcut']}" if spec["shortcut"] else ""
    image = f"images of {spec['in_channels']} x {size_px} x {size_px}"
    console.print(f"\n{spec['name']}{shortcut}, {spec['num_classes']} classes, {image}")
    console.print(
        f"{cost.parameters:,} parameters, {cost.macs:,} MACs, {cost.activations:,} activations"
    )
