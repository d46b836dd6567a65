"""Write docs/commands.md from the command line and docs/recipes.md from the recipe schema.

    python docs/generate.py            write both pages
    python docs/generate.py --check    exit with 1 if a page differs

`tests/docs/test_site.py` holds the committed pages to this script.
"""

import inspect
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reslearn import recipes
from reslearn.cli import app
from reslearn.recipes.schema import Recipe

DOCS = Path(__file__).parent
COMMANDS_HEAD = """# Commands

Every command prints this help with `--help`. The exit status is 0 for success, 1 for a result that
is a "no", 2 for wrong use or bad input, and 130 after Ctrl-C.
"""
RECIPES_HEAD = """# Recipes

A recipe describes a training completely. It is a TOML file with the keys below. Keys that are left
out keep their defaults, and unknown keys are refused. `--set KEY=VALUE` overrides a key on the
command line, for example `--set optimizer.lr=0.2`. A hash of all values names the run in a study.

## Recipes that come with the package

| name | network | data | duration | optimizer |
|---|---|---|---|---|
"""


def commands_page() -> str:
    """Return the reference of all commands, in Markdown."""
    root = typer.main.get_command(app)
    parts = [COMMANDS_HEAD]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        for path, leaf in _leaves(name, command):
            parts.append(_command_section(path, leaf))
    return "\n".join(parts)


def _leaves(path: str, command: Any) -> list[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    leaves = []
    for name, child in sorted(command.commands.items()):
        leaves += _leaves(f"{path} {name}", child)
    return leaves


def _command_section(path: str, command: Any) -> str:
    lines = [f"## `reslearn {path}`", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["| argument or option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper().rstrip('_')}`"
        help_text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        lines.append(f"| {names} | {_default(parameter.default)} | {help_text} |")
    examples = (command.epilog or "").replace("\b", "").strip()
    if examples:
        commands = [line.strip() for line in examples.splitlines()[1:]]
        lines += ["", "```console", *(f"$ {line}" for line in commands if line), "```"]
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value is None or value is False or callable(value) or "Sentinel" in type(value).__name__:
        return ""
    return f"`{value}`"


def recipes_page() -> str:
    """Return the reference of all recipe keys, in Markdown."""
    lines = []
    for name in recipes.names():
        recipe = recipes.load(name)
        lines.append(
            f"| `{name}` | {recipe.model.name} | {recipe.data.name} | {recipe.schedule.duration} "
            f"| {recipe.optimizer.name} |"
        )
    sections = [RECIPES_HEAD + "\n".join(lines) + "\n"]
    top_level: list[str] = []
    for key, field in Recipe.model_fields.items():
        section = _schema_of(field.annotation)
        if section is None:
            top_level.append(_field_row(key, field))
        else:
            sections.append(_schema_section(key, section))
    table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *top_level])
    sections.insert(1, f"## Top level\n\n{table}\n")
    return "\n".join(sections)


def _schema_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _schema_section(key: str, schema: type[BaseModel]) -> str:
    rows = [_field_row(f"{key}.{name}", field) for name, field in schema.model_fields.items()]
    summary = inspect.cleandoc(schema.__doc__ or "")
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## `{key}`", "", summary, "", *head, *rows]) + "\n"


def _field_row(key: str, field: Any) -> str:
    default = "required" if field.default is PydanticUndefined else f"`{field.default!r}`"
    if field.default_factory is not None:
        default = f"`{field.default_factory()!r}`"
    meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
    return f"| `{key}` | {_type_text(field.annotation)} | {default} | {meaning} |"


def _type_text(annotation: Any) -> str:
    """Return a type in words, equal for all versions of Python."""
    if annotation is NoneType:
        return "none"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type_text(argument) for argument in arguments)
    if origin is tuple:
        inner = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {' and '.join(inner)}"
    return {"str": "text", "bool": "true or false", "int": "whole number", "float": "number"}.get(
        annotation.__name__, annotation.__name__
    )


PAGES = {"commands.md": commands_page, "recipes.md": recipes_page}


def main() -> int:
    """Write the pages, or compare them with what is committed."""
    stale = []
    for name, make in PAGES.items():
        text = make()
        path = DOCS / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; run `python docs/generate.py`")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
