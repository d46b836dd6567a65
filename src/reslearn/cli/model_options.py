"""Options for weights of other projects, whose files do not record preprocessing and classes.

A command with the parameter `inputs` has all of them, if `takes_input_arguments` decorates it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from reslearn.interop.as_bundle import InputOptions

WEIGHTS = "Weights of other projects"
_PARAMETER = "inputs"

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
        "Default: as the file states, else 32 for a CIFAR stem and 224 for others.",
    ),
]
ShorterOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=WEIGHTS,
        help="Shorter side to which a picture is resized before its center is cut out. "
        "Default: as the file states, else --size for a CIFAR stem and 256/224 of it for others.",
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
        help="Which convolution of a bottleneck strides, if the file does not show it: 1x1 or 3x3. "
        "Short for --set model.stride_in=1x1.",
        rich_help_panel=WEIGHTS,
    ),
]
SwitchesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a switch that the file does not show, as in model.zero_pad=split. May be "
        "repeated.",
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


@dataclass(frozen=True, kw_only=True)
class InputArguments:
    """The options for weights of other projects, as a user types them."""

    mean: MeanOption = None
    std: StdOption = None
    size: SizeOption = None
    shorter: ShorterOption = None
    class_names: ClassNamesOption = None
    stride_in: StrideInOption = None
    switches: SwitchesOption = None
    entry: EntryOption = None

    def options(self) -> InputOptions:
        """Return the options as values.

        Raises:
            ValueError: If --mean or --std is no list of numbers, or --set is no model.NAME=VALUE.
        """
        from reslearn.interop.as_bundle import InputOptions

        return InputOptions(
            mean=_numbers("--mean", self.mean),
            std=_numbers("--std", self.std),
            size=self.size,
            shorter=self.shorter,
            class_names=self.class_names,
            stride_in=self.stride_in,
            switches=switches_of(self.switches) if self.switches else None,
            entry=self.entry,
        )


def takes_input_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of `InputArguments` in place of its parameter `inputs`.

    typer reads the signature of a command, so the options stand in the new signature.
    """
    hints = get_type_hints(command, include_extras=True)
    option_hints = get_type_hints(InputArguments, include_extras=True)
    names = [field.name for field in fields(InputArguments)]
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != _PARAMETER:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        for field in fields(InputArguments):
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=option_hints[field.name],
                )
            )

    @wraps(command)
    def with_options(*arguments: Any, **values: Any) -> None:
        inputs = {name: values.pop(name) for name in names if name in values}
        command(*arguments, **values, **{_PARAMETER: InputArguments(**inputs)})

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


def switches_of(overrides: list[str]) -> dict[str, Any]:
    """Return the switches that `--set` names, as in a recipe: model.groups=32.

    Raises:
        ValueError: If a text is no model.NAME=VALUE.
    """
    from reslearn.recipes.load import flag_text, parse_value

    switches = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("model."):
            raise ValueError(
                f"{flag_text(override)}: model.NAME=VALUE is needed, as in model.groups=32"
            )
        switches[key.removeprefix("model.")] = parse_value(value, override=override)
    return switches


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} {text}: numbers with commas between them are needed, as in 0.485,0.456,0.406"
        ) from None
