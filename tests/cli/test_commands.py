"""What holds for every command: help without heavy imports, one line and a status for what goes wrong, examples that parse."""

import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import typer.main

import reslearn
from reslearn.cli import app, commands, main

HEAVY = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "rich", "jinja2", "PIL"}
GROUP = typer.main.get_command(app)


def leaf_commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command that can be run, groups such as `bench train` opened."""
    commands = getattr(group, "commands", None)
    if commands is None:
        return [path]
    return [
        leaf for name, command in commands.items() for leaf in leaf_commands(command, (*path, name))
    ]


COMMANDS = leaf_commands(GROUP)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit status, standard output, standard error."""

    def run_in_process(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reslearn", *arguments])
        monkeypatch.setattr(
            "warnings.showwarning", commands._show_warning
        )  # put back afterwards, though main sets it
        with pytest.raises(SystemExit) as stopped:
            main()
        output = capsys.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return run_in_process


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `reslearn list` raise."""

    def fail_with(error: BaseException) -> None:
        def raise_it(kind: object) -> None:
            raise error

        monkeypatch.setattr("reslearn.cli.list._described", raise_it)

    return fail_with


def in_new_process(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "reslearn"]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("--version",), *((*command, "--help") for command in COMMANDS)],
    ids=" ".join,
)
def test_help_and_version_bring_nothing_heavy(arguments: tuple[str, ...]) -> None:
    # typer itself reads the values of arguments with pydantic; the help of `reslearn` alone has none to read.
    heavy = HEAVY | {"pydantic"} if arguments in {("--help",), ("--version",)} else HEAVY
    code = f"""
import sys
from reslearn.cli import main
try:
    main()
except SystemExit as stopped:
    status = stopped.code
print(sorted(set(sys.modules) & {heavy!r}), file=sys.stderr)
sys.exit(status)
"""
    done = in_new_process(*arguments, code=code)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_examples_that_parse(command: tuple[str, ...], run: Run) -> None:
    status, output, _ = run(*command, "--help")
    assert status == 0
    examples = re.findall(
        r"^ +(reslearn .*)$", output.partition("Examples:")[2], flags=re.MULTILINE
    )
    assert examples, f"reslearn {' '.join(command)} --help ends without an example"
    for example in examples:
        words = shlex.split(example)[1:]
        assert tuple(words[: len(command)]) == command, (
            f"{example!r} is an example of another command"
        )
        group, context = GROUP, None
        for name in command[:-1]:
            context = group.make_context(name, [], parent=context, resilient_parsing=True)
            group = group.commands[name]
        leaf = group.commands[command[-1]]
        leaf.make_context(
            command[-1], words[len(command) :]
        )  # raises for an unknown option or a wrong value


def test_python_m_and_version() -> None:
    done = in_new_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"reslearn {reslearn.__version__}\n",
        "",
    )


def test_without_arguments_the_help_is_shown(run: Run) -> None:
    bare, helped = run(), run("--help")
    assert bare == helped
    assert "Commands:" in bare[1]


@pytest.mark.parametrize(
    ("arguments", "tells"),
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
        (["inspect", "resnet20", "--size-px", "0"], ["size_px=0"]),
        (["inspect", "resnet20", "resnet32"], ["resnet32"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use_gets_one_line_and_status_2(
    arguments: list[str], tells: list[str], run: Run
) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("reslearn: ")
    assert errors.count("\n") == 1
    assert [word for word in tells if word not in errors] == []


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


def test_a_fault_of_ours_shows_its_traceback(
    run: Run, failing: Callable[[BaseException], None]
) -> None:
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


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "reslearn", "list", "recipes"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_warning_of_ours_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(kind: object) -> dict[str, str]:
        warnings.warn("without\n  effect", stacklevel=2)
        return {"resnet20": ""}

    monkeypatch.setattr("reslearn.cli.list._described", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run("list", "models") == (0, "resnet20\n", "reslearn: warning: without effect\n")
