"""Ctrl-C at any moment of a start, of an import or of the exit: no traceback, status 130.

Count the tracebacks of 60 tries per command: `python tests/cli/test_interrupted_start.py 60`.
"""

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

COMMANDS = (("list", "models"), ("train", "digits", "--model", "resnet8", "--dry-run"))
TERMINAL_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
# The program raises a signal when Python imports a module.
PROGRAM = """
import os, signal, sys
name, number = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)

class Raise:
    def find_spec(self, module, path, target=None):
        if module == name:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Raise())
sys.argv[1:] = sys.argv[3:]
{before}
from reslearn.cli import main
main()
"""


def run_with_signal(
    module: str, number: int, *arguments: str, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new process that gets a signal when it imports `module`."""
    command = [sys.executable, "-c", PROGRAM.replace("{before}", before), module, str(int(number))]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "module", ["typer", "reslearn.cli.train", "pydantic", "torch", "torch.functional"]
)
def test_ctrl_c_during_an_import_ends_without_a_traceback(module: str) -> None:
    process = run_with_signal(module, signal.SIGINT, "list", "models")
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")


def test_a_termination_during_an_import_ends_without_a_traceback() -> None:
    process = run_with_signal("torch.functional", signal.SIGTERM, "list", "models")
    # The signal itself ends the process, which a shell reports as status 143.
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGTERM, "", "")


def test_ctrl_c_during_the_exit_is_no_traceback() -> None:
    at_exit = "import atexit; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    process = run_with_signal("none", signal.SIGINT, "list", "recipes", before=at_exit)
    assert (process.returncode, process.stderr) == (130, "")
    assert "cifar-paper" in process.stdout


def test_ctrl_c_during_work_may_clean_up() -> None:
    """An import inside the work of a command raises, so that open files and bars are closed."""
    clean_up = """
import reslearn.report
def run_page(run):
    try:
        import colorsys
    finally:
        print("cleaned up", flush=True)
reslearn.report.run_page = run_page
from reslearn.runs import RunFolder
RunFolder.exists = lambda self: True
RunFolder.open = lambda path: path
"""
    process = run_with_signal("colorsys", signal.SIGINT, "report", "run", before=clean_up)
    assert (process.returncode, process.stdout, process.stderr) == (130, "cleaned up\n", "")


def test_an_interrupt_that_a_library_converts_is_still_an_interrupt() -> None:
    convert = """
import reslearn.models
def names():
    try:
        import colorsys
    except KeyboardInterrupt:
        raise RecursionError
reslearn.models.names = names
"""
    process = run_with_signal("colorsys", signal.SIGINT, "list", "models", before=convert)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")


def test_ctrl_c_while_train_starts_itself_again_waits_for_the_new_start() -> None:
    """`train` replaces its process once. The signal comes just before that."""
    before = """
execve = os.execve
def replace(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    print("replaced", flush=True)
    execve(*arguments)
os.execve = replace
os.environ.pop("GLIBC_TUNABLES", None)
"""
    process = run_with_signal("none", signal.SIGINT, "train", "digits", "--dry-run", before=before)
    assert (process.returncode, process.stdout, process.stderr) == (130, "replaced\n", "")


def test_an_ignored_ctrl_c_remains_ignored() -> None:
    before = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = run_with_signal("torch", signal.SIGINT, "list", "models", "resnet20", before=before)
    assert (process.returncode, process.stdout, process.stderr) == (0, "resnet20\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", TERMINAL_STATUS, ids=lambda number: number.name)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_signal_at_a_random_moment_ends_without_a_traceback(
    command: tuple[str, ...], number: signal.Signals
) -> None:
    counts = interrupt_at_random(command, number, num_tries=30)
    assert set(counts) <= {"done", "stopped", "before our first line"}, counts


def interrupt_at_random(
    command: tuple[str, ...], number: signal.Signals, num_tries: int
) -> Counter[str]:
    """Start a command again and again, send a signal after a random time, and count the ends."""
    start = time.monotonic()
    _start(command).communicate()
    longest = time.monotonic() - start
    random_delay = random.Random(number)
    counts: Counter[str] = Counter()
    for _ in range(num_tries):
        process = _start(command)
        time.sleep(random_delay.uniform(0, longest))
        process.send_signal(number)
        _, errors = process.communicate()
        counts[_kind_of_end(process.returncode, errors, number)] += 1
    return counts


def _start(command: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "reslearn", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kind_of_end(status: int, errors: str, number: signal.Signals) -> str:
    if not errors:
        stopped = {-number, TERMINAL_STATUS[number]}
        return {0: "done"}.get(status, "stopped" if status in stopped else f"status {status}")
    in_our_code = re.search(r"/reslearn/cli/|site-packages/\w+/", errors)
    return f"traceback, status {status}" if in_our_code else "before our first line"


if __name__ == "__main__":
    # A shell starts background jobs with Ctrl-C ignored, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for command in COMMANDS:
        for number in TERMINAL_STATUS:
            ends = interrupt_at_random(command, number, num_tries=int(sys.argv[1]))
            print(" ".join(command), number.name, dict(ends), flush=True)
