"""Members measured side by side, one thread each; every one that is done is a line in a file, so that what was stopped goes on.

`truth.jsonl` lies beside this file: it belongs to the members. `verdicts.jsonl` goes to results/depth: it belongs to the diagnosis as it is
now, whose source a line's `rules` is the hash of; lines of another are made anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.depth import rivals, truth
from benchmarks.depth.members import Member, members
from benchmarks.depth.score import Judged

import reslearn.diagnose
from reslearn.cli.output import process_pool
from reslearn.diagnose import diagnose

TRUTHS = Path(__file__).parent / "truth.jsonl"
VERDICTS = Path(__file__).parents[2] / "results" / "depth" / "verdicts.jsonl"
MINUTES = 30.0
"""A bound that no member comes near: budgets are in steps, so that verdicts do not hang on the machine."""

Line = dict[str, Any]
Say = Callable[[str], None]


def measure_truths(
    chosen: Sequence[Member], *, jobs: int, say: Say, place: Path = TRUTHS, **small: int
) -> None:
    """Those that are not in the file yet. `small`: fewer steps and seeds than the rule says, for tests."""
    done = {line["name"] for line in lines(place)}
    _run(_truth, [one for one in chosen if one.name not in done], place, jobs, say, small)


def measure_verdicts(
    chosen: Sequence[Member],
    *,
    jobs: int,
    say: Say,
    place: Path = VERDICTS,
    truths: Path = TRUTHS,
    **small: int,
) -> None:
    """Those that the file does not have by the rules as they are now, but for members whose truth was measured and is not settled."""
    now = rules()
    kept = [line for line in lines(place) if line["rules"] == now]
    done = {line["name"] for line in kept} | {
        line["name"] for line in lines(truths) if not line["names"]
    }
    if place.is_file():
        place.write_text("".join(json.dumps(line) + "\n" for line in kept))
    _run(_verdict, [one for one in chosen if one.name not in done], place, jobs, say, small)


def judged(half: str | None, *, truths: Path = TRUTHS, verdicts: Path = VERDICTS) -> list[Judged]:
    """Members of a half (of both, if None) with a settled truth and a verdict."""
    known = {line["name"]: tuple(line["names"]) for line in lines(truths)} | {
        one.name: one.truths for one in members() if one.truths
    }
    said = {line["name"]: line for line in lines(verdicts)}
    return [
        Judged(
            name=one.name,
            truths=known[one.name],
            verdict=said[one.name]["verdict"],
            seconds=said[one.name]["seconds"],
            alarms=said[one.name]["alarms"],
        )
        for one in members()
        if half in (None, one.half) and known.get(one.name) and one.name in said
    ]


def unsettled(half: str | None, *, truths: Path = TRUTHS) -> int:
    """Members of a half whose measured truth did not come out one way or the other."""
    known = {line["name"] for line in lines(truths) if not line["names"]}
    return sum(one.name in known for one in members() if half in (None, one.half))


def lines(place: Path) -> list[Line]:
    """What was measured; a last line that was cut is left out."""
    if not place.is_file():
        return []
    found = []
    for text in place.read_text().splitlines():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def rules() -> str:
    """Twelve digits of the hash of what decides a verdict: rules, experiments and surgery."""
    rooms = {
        "diagnose": (
            "budget",
            "conditions",
            "experiment",
            "problem",
            "rates",
            "screening",
            "signals",
            "trial",
            "verdict",
        ),
        "models": ("blocks", "surgery", "tracing"),
    }
    root = Path(reslearn.diagnose.__file__).parents[1]
    source = b"".join(
        (root / room / f"{name}.py").read_bytes() for room, names in rooms.items() for name in names
    )
    return hashlib.sha256(source + str(truth.DIAGNOSIS_STEPS).encode()).hexdigest()[:12]


def _truth(name: str, small: dict[str, int]) -> Line:
    return {"name": name, **asdict(truth.truth_of(_named(name), **small))}


def _verdict(name: str, small: dict[str, int]) -> Line:
    problem, steps = _named(name).problem(), small.get("steps", truth.DIAGNOSIS_STEPS)
    started = time.monotonic()
    found = diagnose(problem, minutes=MINUTES, steps=steps)
    seconds = time.monotonic() - started
    evidence = asdict(found.evidence)
    alarms = rivals.alarms(problem, steps=steps)
    return {
        "name": name,
        "verdict": found.verdict.name,
        "because": found.verdict.because,
        "certain": found.verdict.certain,
        "seconds": round(seconds, 1),
        "alarms": alarms,
        "evidence": evidence,
        "rules": rules(),
    }


def _run(
    work: Callable[[str, dict[str, int]], Line],
    chosen: Sequence[Member],
    place: Path,
    jobs: int,
    say: Say,
    small: dict[str, int],
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(_done(work, [one.name for one in chosen], jobs, small), 1):
        with place.open("a") as file:
            file.write(json.dumps(line) + "\n")
        say(
            f"{number}/{len(chosen)} {line['name']}: {line['verdict'] if 'verdict' in line else ' or '.join(line['names']) or 'unsettled'}"
        )


def _done(
    work: Callable[[str, dict[str, int]], Line],
    names: Sequence[str],
    jobs: int,
    small: dict[str, int],
) -> Iterator[Line]:
    if jobs == 1:
        yield from (work(name, small) for name in names)
        return
    with process_pool(jobs) as pool:
        try:
            for future in as_completed([pool.submit(work, name, small) for name in names]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise


def _named(name: str) -> Member:
    return next(one for one in members() if one.name == name)
