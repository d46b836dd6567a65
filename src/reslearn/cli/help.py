"""The --help of commands: options and commands in titled panels, whole sentences, no cut summary.

A terminal gets the boxes that typer draws with rich. A pipe gets the same panels as plain sections,
in half the time, since importing rich takes as long as everything else.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

from reslearn.terminal import raw_stream


class CommandWithPanels(TyperCommand):
    """A command whose options are grouped by their `rich_help_panel`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if not _draw_boxes(self, ctx):
            super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)


class GroupWithPanels(TyperGroup):
    """A group whose commands and options are grouped by their `rich_help_panel`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if not _draw_boxes(self, ctx):
            super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            title = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(title, []).append((f"{name:{width}}", summary(command)))
        _write_panels(panels, formatter)


def summary(command: Any) -> str:
    """Return the first paragraph of the help of a command, on one line."""
    paragraph = inspect.cleandoc(command.help or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def unwrap(docstring: str) -> str:
    """Join the lines of each paragraph, so that a terminal of any width can wrap them."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _draw_boxes(command: TyperCommand | TyperGroup, ctx: Any) -> bool:
    """Draw the help with rich on a terminal; return whether it was drawn."""
    if not sys.stdout.isatty():
        return False
    from typer.rich_utils import rich_format_help

    _place_help_option(command.get_params(ctx))
    with contextlib.redirect_stdout(raw_stream(sys.stdout)):
        rich_format_help(obj=command, ctx=ctx, markup_mode="rich")
    return True


def _place_help_option(parameters: list[Any]) -> None:
    """Move --help, which typer adds, into the panel of the option before it."""
    *own_parameters, last = parameters
    if own_parameters and last.rich_help_panel is None and "--help" in last.opts:
        last.rich_help_panel = own_parameters[-1].rich_help_panel


def _write_parameters(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    parameters: list[Any] = command.get_params(ctx)
    _place_help_option(parameters)
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is not None:
            default_title = f"{parameter.param_type_name}s".capitalize()
            title = parameter.rich_help_panel or default_title
            panels.setdefault(title, []).append(record)
    _write_panels(panels, formatter)


def _write_panels(panels: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for title, rows in panels.items():
        with formatter.section(title):
            formatter.write_dl(rows)
