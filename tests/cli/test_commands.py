"""Every command: fast help in panels and whole sentences, one-line errors, examples that parse."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import typer.main

import reslearn
from reslearn.cli import app, commands
from reslearn.cli.help import summary

HEAVY = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "rich", "jinja2", "PIL"}
GROUP = typer.main.get_command(app)


def all_commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every command and group below `group`, by its words on the command line."""
    commands = {}
    for name, command in group.commands.items():
        commands[(*path, name)] = command
        if hasattr(command, "commands"):
            commands.update(all_commands(command, (*path, name)))
    return commands


COMMANDS_AND_GROUPS = all_commands(GROUP)
COMMANDS = [
    words for words, command in COMMANDS_AND_GROUPS.items() if not hasattr(command, "commands")
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; returns status, standard output, standard error."""

    def run_in_process(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reslearn", *arguments])
        # `main` sets this too; set through monkeypatch, it is restored after the test.
        monkeypatch.setattr("warnings.showwarning", commands._show_warning)
        with pytest.raises(SystemExit) as stopped:
            commands.main()
        output = capsys.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return run_in_process


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `reslearn list` raise an error."""

    def fail_with(error: BaseException) -> None:
        def fail(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("reslearn.cli.list._described", fail)

    return fail_with


LIGHT_COMMANDS = [("--help",), ("--version",), (), *((*command, "--help") for command in COMMANDS)]
# One process runs all commands, so a module is imported by the first command that has it.
IMPORTS_OF_COMMANDS = """
import contextlib, io, json, sys
from reslearn.cli import main
before = set()
for arguments in json.load(sys.stdin):
    sys.argv = ["reslearn", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code
    modules = set(sys.modules)
    print(json.dumps([status, output.getvalue() != "", sorted(modules - before)]))
    before = modules
"""


@pytest.fixture(scope="module")
def imports_of_commands() -> dict[tuple[str, ...], tuple[int, bool, list[str]]]:
    """Return by command: its status, whether it printed anything, and the modules it imported."""
    process = subprocess.run(
        [sys.executable, "-c", IMPORTS_OF_COMMANDS],
        input=json.dumps(LIGHT_COMMANDS),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stderr == ""
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return dict(zip(LIGHT_COMMANDS, lines, strict=True))


@pytest.mark.parametrize("arguments", LIGHT_COMMANDS, ids=" ".join)
def test_help_and_version_import_nothing_heavy(
    arguments: tuple[str, ...],
    imports_of_commands: dict[tuple[str, ...], tuple[int, bool, list[str]]],
) -> None:
    # typer reads the values of arguments with pydantic; `reslearn --help` has no values to read.
    heavy = HEAVY | {"pydantic"} if arguments in {("--help",), ("--version",)} else HEAVY
    status, has_output, modules = imports_of_commands[arguments]
    assert (status, sorted(heavy & set(modules))) == (0, [])
    assert has_output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_examples_that_parse(command: tuple[str, ...], run: Run) -> None:
    status, output, _ = run(*command, "--help")
    assert status == 0
    examples = re.findall(
        r"^ +(reslearn .*)$", output.partition("Examples:")[2], flags=re.MULTILINE
    )
    assert examples, f"reslearn {' '.join(command)} --help has no example"
    for example in examples:
        words = shlex.split(example)[1:]
        assert tuple(words[: len(command)]) == command, (
            f"{example!r} is an example of another command"
        )
        group, context = GROUP, None
        for name in command[:-1]:
            context = group.make_context(name, [], parent=context, resilient_parsing=True)
            group = group.commands[name]
        # Raises for an unknown option or a wrong value.
        group.commands[command[-1]].make_context(command[-1], words[len(command) :])


@pytest.mark.parametrize("words", COMMANDS_AND_GROUPS, ids=" ".join)
def test_a_summary_is_one_short_sentence_and_never_cut(words: tuple[str, ...], run: Run) -> None:
    text = summary(COMMANDS_AND_GROUPS[words])
    _, listing, _ = run(*words[:-1], "--help")
    assert text in " ".join(listing.split())
    assert len(text) <= 75
    assert re.fullmatch(r"[A-Z][^.]*(\.\w[^.]*)*[^.]\.", text), text


@pytest.mark.parametrize("words", COMMANDS_AND_GROUPS, ids=" ".join)
def test_the_help_of_an_option_is_sentences(words: tuple[str, ...]) -> None:
    for parameter in COMMANDS_AND_GROUPS[words].params:
        # A bracket would be markup for rich.
        assert re.fullmatch(r"[A-Z][^\[]*[^.]\.", parameter.help), (
            f"{parameter.name}: {parameter.help}"
        )


ROOT_PANELS = [
    "Options",
    "Train and evaluate",
    "Compare and reproduce",
    "Diagnose and analyze",
    "Networks and weights",
    "Benchmarks",
]
TRAIN_PANELS = ["Arguments", "Recipe", "Data", "Run folder", "Machine", "Output"]


def test_commands_and_options_are_listed_in_panels(run: Run) -> None:
    for arguments, titles in ((("--help",), ROOT_PANELS), (("train", "--help"), TRAIN_PANELS)):
        _, output, _ = run(*arguments)
        sections = re.findall(r"^(\w[\w ]*):\n", output, flags=re.MULTILINE)
        assert sections == titles


def test_a_terminal_gets_boxes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    for arguments, titles, first_row in (
        (("--help",), ROOT_PANELS, r"│ train +Train one network and write a run folder\."),
        (("train", "--help"), TRAIN_PANELS, r"│ --model +<str> +Train this network, a name"),
    ):
        status, output, _ = run(*arguments)
        assert status == 0
        output = re.sub(r"\x1b\[[\d;]*m", "", output)  # colors
        assert re.findall(r"╭─ (\w[\w ]*) ─", output) == titles
        assert re.search(first_row, output)


def test_python_m_and_version() -> None:
    command = [sys.executable, "-m", "reslearn", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (
        0,
        f"reslearn {reslearn.__version__}\n",
        "",
    )


def test_without_arguments_the_help_is_shown(run: Run) -> None:
    without_arguments = run()
    assert without_arguments == run("--help")
    assert "Train and evaluate:" in without_arguments[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-command"], ["no-such-command", "reslearn --help"]),
        (["list", "nothing"], ["nothing", "models", "recipes", "data"]),
        (["list"], ["kind", "models", "reslearn list --help"]),
        (["list", "models", "--bogus"], ["--bogus", "reslearn list --help"]),
        (["inspect", "resnet21"], ["resnet21", "resnet20"]),
        (["inspect", "resnet20", "--shortcut", "D"], ["shortcut", "'D'", "'A', 'B', 'C'"]),
        (
            ["inspect", "resnet20", "--size-px", "many"],
            ["--size-px", "many", "reslearn inspect --help"],
        ),
        (["inspect", "resnet20", "--num-classes", "0"], ["num_classes", "0"]),
        (["inspect", "resnet20", "--size-px", "0"], ["--size-px 0"]),
        (["inspect", "resnet20", "resnet32"], ["resnet32"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use_gets_one_line_and_status_2(
    arguments: list[str], words: list[str], run: Run
) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("reslearn: ")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\n  second"), "reslearn: first second\n"),
        (
            FileNotFoundError(2, "No such file or directory", "missing.json"),
            "reslearn: No such file or directory: missing.json\n",
        ),
        (OSError("nothing but a text"), "reslearn: nothing but a text\n"),
        (OSError(28, "No space left on device"), "reslearn: No space left on device\n"),
        (ValueError(), "reslearn: ValueError\n"),
    ],
    ids=repr,
)
def test_bad_input_gets_one_line_and_status_2(
    error: Exception, line: str, run: Run, failing: Callable[[BaseException], None]
) -> None:
    failing(error)
    assert run("list", "models") == (2, "", line)


def test_a_bug_shows_its_traceback(run: Run, failing: Callable[[BaseException], None]) -> None:
    failing(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run("list", "models")


def test_debug_shows_the_traceback(
    run: Run, failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ValueError("wrong"))
    monkeypatch.setenv("RESLEARN_DEBUG", "1")
    with pytest.raises(ValueError, match="wrong"):
        run("list", "models")


def test_interrupt_is_status_130(run: Run, failing: Callable[[BaseException], None]) -> None:
    failing(KeyboardInterrupt())
    assert run("list", "models")[0] == 128 + signal.SIGINT


def test_a_closed_pipe_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        process = subprocess.run(
            [sys.executable, "-m", "reslearn", "list", "recipes"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (process.returncode, process.stderr) == (1, "")


def test_a_warning_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*arguments: object) -> dict[str, str]:
        warnings.warn("without\n  effect", stacklevel=2)
        return {"resnet20": ""}

    monkeypatch.setattr("reslearn.cli.list._described", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run("list", "models") == (0, "resnet20\n", "reslearn: warning: without effect\n")
