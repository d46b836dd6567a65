"""Kill, damage and steal small runs, and count how often the outcome is wrong.

    python -m tests.faults --kills 200 --flips 200 --out results/faults

Each trial begins, resumes or reads a real run of eleven steps. It is correct if the run ends with
exactly the bits of an undisturbed run, or if the fault is refused in one line and no result is
written. Everything else is a failure: other weights, another result, a traceback, a lost run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tests.faults import trials
from tests.faults.trials import Site

_TRIALS_PER_LINE = 10


def main() -> None:
    """Run all trials, print the table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="about this number of kills")
    parser.add_argument("--flips", type=int, default=200, help="about this number of flipped bits")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and positions")
    parser.add_argument("--out", type=Path, help="folder of faults.json and faults.md")
    arguments = parser.parse_args()
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    counts, num_kills = run_trials(arguments.kills, arguments.flips, seed=arguments.seed)
    table = markdown(counts, num_kills)
    print(table)
    if arguments.out is not None:
        write(arguments.out, counts, num_kills, table)
    sys.exit(any(count.failures for count in counts))


@dataclass
class Count:
    """The outcome of the trials of one kind.

    Attributes:
        fault: What was done.
        tries: Number of trials.
        refused: Trials in which the fault was refused in one line.
        failures: What went wrong, a line per failed trial.
    """

    fault: str
    tries: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def run_trials(num_kills: int, num_flips: int, *, seed: int) -> tuple[list[Count], int]:
    """Run the trials of all kinds. Return their counts, and the number of killed processes."""
    os.environ["RESLEARN_PROGRESS"] = "off"
    warnings.simplefilter("ignore")  # a damaged checkpoint is reported by a warning
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        site = Site.build(Path(temporary), seed)
        few = max(1, num_kills // 20)
        kinds: list[tuple[str, int, Callable[[Site, int], bool]]] = [
            ("killed at a random moment", num_kills // 2, trials.killed_at_random),
            ("killed before each file-system event", num_kills // 2, trials.killed_before_event),
            ("command killed at a random moment", few, trials.command_killed),
            ("bit flipped, unfinished run", num_flips // 2, trials.flipped_unfinished),
            ("bit flipped, finished run", num_flips // 2, trials.flipped_finished),
            ("folder of a living run removed and begun anew", few, trials.replaced),
            ("two processes resume one run", few, trials.resumed_twice),
            ("disk full at a random size", few, trials.disk_full),
        ]
        counts = [count_trials(site, *kind) for kind in kinds]
        return counts, site.num_kills


def count_trials(site: Site, fault: str, tries: int, trial: Callable[[Site, int], bool]) -> Count:
    """Run one kind of trials. `trial` returns whether the fault was refused, or raises."""
    count = Count(fault)
    for number in range(tries):
        if number % _TRIALS_PER_LINE == 0:
            print(f"{fault}: {number} of {tries}", file=sys.stderr, flush=True)
        try:
            count.refused += trial(site, number)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            count.failures.append(f"trial {number}: {type(error).__name__}: {first_line}")
        count.tries += 1
    return count


def markdown(counts: list[Count], num_kills: int) -> str:
    """Return the table: what was done, how often, and the failures."""
    lines = ["| fault | tries | refused in one line | failures |", "|---|---|---|---|"]
    for count in counts:
        lines.append(f"| {count.fault} | {count.tries} | {count.refused} | {len(count.failures)} |")
    failures = [f"- {count.fault}: {line}" for count in counts for line in count.failures]
    total = f"{num_kills} processes were killed while they trained."
    return "\n".join([*lines, "", total, "", *failures]).rstrip() + "\n"


def write(folder: Path, counts: list[Count], num_kills: int, table: str) -> None:
    """Write the table and the counts, with the command and the machine."""
    record = {
        "command": ["python", "-m", "tests.faults", *sys.argv[1:]],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "killed_processes": num_kills,
        "counts": [vars(count) for count in counts],
    }
    (folder / "faults.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "faults.md").write_text(table)


if __name__ == "__main__":
    main()
