"""`reslearn inspect MODEL|FILE`: layers, parameters and multiply-adds of a network, without weights, data or a forward pass (Tables 1, 6);
or whose weights a file holds, and of which network."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reslearn.models import Complexity

EXAMPLES = (
    "reslearn inspect resnet56",
    "reslearn inspect resnet34 --shortcut C",
    "reslearn inspect resnet50 --stride-in 3x3 --json",
    "reslearn inspect resnet50-11ad3fa6.pth",
)


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A name, such as resnet56 (see `reslearn list models`), or a file of weights."
        ),
    ],
    shortcut: Annotated[
        str | None,
        typer.Option(help="A, B or C; by default the family's: B for bottleneck nets, else A."),
    ] = None,
    zero_pad: Annotated[
        str, typer.Option(help="Where option A puts zeros: append or split.")
    ] = "append",
    subsample: Annotated[
        str, typer.Option(help="How option A halves maps: slice or average.")
    ] = "slice",
    stride_in: Annotated[
        str | None,
        typer.Option(help="Which convolution of a bottleneck strides: 1x1 (paper) or 3x3."),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize/--no-normalize", help="With batch normalization, or with biases."
        ),
    ] = True,
    num_classes: Annotated[
        int | None, typer.Option(help="By default 10 for CIFAR nets, 1000 for ImageNet nets.")
    ] = None,
    in_channels: Annotated[int, typer.Option(help="Channels of an image.")] = 3,
    size_px: Annotated[
        int | None,
        typer.Option(help="Side of an image; default: a bundle's own, 32 (CIFAR nets) or 224."),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            help="Of a file with several tables of weights: which, such as state_dict_ema."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show the layers of a network with their output shapes, parameters and multiply-adds; or say whose weights a file holds.

    Files of weights are read without running anything in them: torch.save, safetensors, Detectron2 .pkl, .caffemodel, ONNX, Keras .h5.
    Layers are counted for one image on torch's meta device, so even resnet1202 takes no memory. Multiply-adds (MACs, the paper's
    "FLOPs") are those of convolutions and fully connected layers.
    """
    from reslearn.models import complexity
    from reslearn.models.names import architecture_of

    if _is_file(model):
        _inspect_file(model, entry=entry, size_px=size_px, as_json=json)
        return
    architecture = architecture_of(model)
    imagenet = architecture is not None and architecture.switches["stem"] != "cifar"
    size_px = size_px if size_px is not None else (224 if imagenet else 32)
    if size_px < 1:
        raise ValueError(f"size_px={size_px}: an image has a side of at least 1 pixel")
    switches: dict[str, Any] = {
        "num_classes": num_classes if num_classes is not None else (1000 if imagenet else 10),
        "in_channels": in_channels,
        "shortcut": shortcut,
        "zero_pad": zero_pad,
        "subsample": subsample,
        "stride_in": stride_in,
        "normalize": normalize,
    }
    net, spec = _build_without_weights(model, switches)
    counted = complexity(net, (in_channels, size_px, size_px))
    if json:
        _print_json(spec, counted, size_px)
    else:
        _print_table(spec, counted, size_px)


def _is_file(model: str) -> bool:
    """A file that exists, a hub's folder, weights with a name or an address; or what can be no network, whose names have no dots."""
    from reslearn.interop.named import fetched, is_named

    return is_named(model) or fetched(model).is_file() or "/" in model or "." in model


def _inspect_file(source: str, *, entry: str | None, size_px: int | None, as_json: bool) -> None:
    from json import dumps

    from reslearn.interop import inspect_file

    found = inspect_file(source, entry=entry, size_px=size_px)
    typer.echo(dumps(found.as_json(), indent=2) if as_json else "\n".join(found.lines()))


def _build_without_weights(model: str, switches: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import torch

    from reslearn.models import build

    with torch.device("meta"):
        net = build(model, **switches)
    return net, dict(net.spec)


def _print_json(spec: dict[str, Any], counted: "Complexity", size_px: int) -> None:
    from dataclasses import asdict
    from json import dumps

    typer.echo(dumps({"model": spec, "size_px": size_px, **asdict(counted)}, indent=2))


def _print_table(spec: dict[str, Any], counted: "Complexity", size_px: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind", "output shape"):
        table.add_column(heading)
    for heading in ("parameters", "MACs"):
        table.add_column(heading, justify="right")
    for layer in counted.layers:
        shape = " x ".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.kind, shape, _count(layer.parameters), _count(layer.macs))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    shortcut = f", shortcut {spec['shortcut']}" if spec["shortcut"] else ""
    console.print(
        f"\n{spec['name']}{shortcut}, {spec['num_classes']} classes, images of {spec['in_channels']} x {size_px} x {size_px}"
    )
    console.print(
        f"{counted.parameters:,} parameters, {counted.macs:,} MACs, {counted.activations:,} activations"
    )


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
