"""Options for weights of other projects, whose files do not record preprocessing and classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reslearn.interop.as_bundle import InputOptions

WEIGHTS = "Weights of other projects"

MeanOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Mean of each channel, of pixels from 0 to 1, as in 0.485,0.456,0.406.",
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Standard deviation of each channel, in the same unit, as in 0.229,0.224,0.225.",
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=WEIGHTS,
        help="Side in pixels of the square that the network sees. "
        "Default: 32 for a CIFAR stem, else 224.",
    ),
]
ShorterOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=WEIGHTS,
        help="Shorter side to which a picture is resized before its center is cut out. "
        "Default: --size for a CIFAR stem, else 256/224 of it.",
    ),
]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS, help="A text file with one class name per line, in output order."
    ),
]
StrideInOption = Annotated[
    str | None,
    typer.Option(
        help="Which convolution of a bottleneck strides, if the file does not show it: 1x1 or 3x3.",
        rich_help_panel=WEIGHTS,
    ),
]
EntryOption = Annotated[
    str | None,
    typer.Option(
        help="Which network of the file to use if it holds several: a table such as "
        "state_dict_ema, or the beginning of names such as state_dict:module.encoder_q.",
        rich_help_panel=WEIGHTS,
    ),
]


def input_options(
    mean: str | None,
    std: str | None,
    size: int | None,
    shorter: int | None,
    class_names: Path | None,
    stride_in: str | None,
    entry: str | None = None,
) -> InputOptions:
    """Return the options as values.

    Raises:
        ValueError: If --mean or --std is no list of numbers.
    """
    from reslearn.interop.as_bundle import InputOptions

    return InputOptions(
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        size=size,
        shorter=shorter,
        class_names=class_names,
        stride_in=stride_in,
        entry=entry,
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} {text}: numbers with commas between them are needed, as in 0.485,0.456,0.406"
        ) from None
