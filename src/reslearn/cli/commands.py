"""Puts the commands together, and turns what goes wrong into one line and an exit status.

A command is a function in `reslearn/cli/<command>.py` with an `EXAMPLES` beside it, and one line in this file. Command files import
other rooms inside functions only, so that `reslearn --help` needs neither torch nor numpy (tests/cli/test_commands.py).
Exit status: 0 done, 1 a result that is a "no", 2 wrong use or bad input, 130 interrupted.
"""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

# What typer raises about arguments; not among the names that `typer` itself exports.
from typer.exceptions import TyperException

import reslearn
from reslearn.cli import (
    analyze,
    bench,
    demo,
    diagnose,
    evaluate,
    exhibits,
    export,
    inspect,
    paper,
    report,
    study,
    train,
)
from reslearn.cli import list as list_

# Plain help: rendering it with rich takes as long again as all the rest (0.24 s against 0.12 s).
app = typer.Typer(
    name="reslearn",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 120},
)


def examples_epilog(examples: tuple[str, ...]) -> str:
    """The end of a command's --help. The backspace is the mark that keeps the lines from being joined."""
    return "\n".join(("\b", "Examples:", *(f"  {example}" for example in examples)))


def add(
    name: str, function: Callable[..., None], examples: tuple[str, ...], *, to: typer.Typer = app
) -> None:
    """Make `function` the command `reslearn NAME`, or one of a group; its docstring is the help."""
    to.command(name, epilog=examples_epilog(examples))(function)


def group(name: str, about: str, *examples: str) -> typer.Typer:
    """A group of commands, `reslearn NAME COMMAND`."""
    made = typer.Typer(
        rich_markup_mode=None,
        help=about,
        epilog=examples_epilog(tuple(f"reslearn {example}" for example in examples)),
    )
    app.add_typer(made, name=name)
    return made


add("demo", demo.demo, demo.EXAMPLES)
add("export", export.export, export.EXAMPLES)
add("inspect", inspect.inspect, inspect.EXAMPLES)
add("list", list_.list_names, list_.EXAMPLES)
add("train", train.train, train.EXAMPLES)
add("evaluate", evaluate.evaluate, evaluate.EXAMPLES)
add("study", study.study, study.EXAMPLES)
add("report", report.report, report.EXAMPLES)
add("analyze", analyze.analyze, analyze.EXAMPLES)
add("diagnose", diagnose.diagnose, diagnose.EXAMPLES)

paper_group = group(
    "paper",
    "The paper as an executable: its claims, tables and figures, with verdicts.",
    "paper list",
    "paper table1",
)
add("list", paper.list_paper, paper.LIST_EXAMPLES, to=paper_group)
add("claims", paper.claims, paper.CLAIMS_EXAMPLES, to=paper_group)
for exhibit in exhibits.EXHIBITS:
    add(exhibit, exhibits.exhibit_command(exhibit), exhibits.examples(exhibit), to=paper_group)

bench_group = group(
    "bench",
    "Measure how fast training, loading and studies are, and how often a diagnosis errs.",
    "bench train",
    "bench study",
)
add("train", bench.train, bench.TRAIN_EXAMPLES, to=bench_group)
add("load", bench.load, bench.LOAD_EXAMPLES, to=bench_group)
add("study", bench.study, bench.STUDY_EXAMPLES, to=bench_group)
add("diagnose", bench.diagnose, bench.DIAGNOSE_EXAMPLES, to=bench_group)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reslearn {reslearn.__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=examples_epilog(("reslearn demo", "reslearn train cifar10 --model resnet20")),
)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Residual learning: build, train, compare and report networks as deep as the task deserves."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the command line in `sys.argv` and leave the process with its exit status.

    ValueError (ours for whatever a user can get wrong) and OSError (a missing file, a full disk) become one line on stderr and
    status 2; RESLEARN_DEBUG=1 shows the traceback instead. Anything else is a bug of ours and shows its traceback.
    """
    warnings.showwarning = _show_warning
    try:
        status = app(prog_name="reslearn", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        _stop(_usage_error(error), status=error.exit_code)
    except BrokenPipeError:
        # The reader went away (`reslearn list models | head -1`). Nothing may be flushed into the pipe any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except KeyboardInterrupt:
        status = 130
    except (ValueError, OSError) as error:
        if os.environ.get("RESLEARN_DEBUG", "0") not in {"", "0"}:
            raise
        _stop(_one_line(error), status=2)
    sys.exit(status or 0)


def _one_line(error: Exception) -> str:
    """What went wrong. An OSError is told without its number but with the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(str(part) for part in (error.strerror, error.filename) if part is not None)
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def _usage_error(error: TyperException) -> str:
    """A wrong option or argument: the message, the value where the message lacks it, and where the help is."""
    line = " ".join(
        error.format_message().replace("Value error, ", "").split()
    )  # pydantic's words for a value that typer refuses
    details: list[dict[str, Any]] = getattr(
        error.__cause__, "errors", list
    )()  # of pydantic, with which typer reads values
    given = ", ".join(repr(detail["input"]) for detail in details)
    if given and given not in line:
        line = f"{line}, not {given}"
    context: Any = getattr(error, "ctx", None)
    return f"{line} (see {context.command_path} --help)" if context is not None else line


def _stop(message: str, *, status: int) -> NoReturn:
    print(f"reslearn: {message}", file=sys.stderr)
    sys.exit(status)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """A warning of ours is for the user (a setting without effect); the source line that Python adds tells them nothing."""
    print(f"reslearn: warning: {' '.join(str(message).split())}", file=sys.stderr)
