"""Measured numbers as text for tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from reslearn.paper.experiment import Line
from reslearn.study import Comparison, Summary, count_text, number_text

HEADS = ("paper", "ours [95 %] (n)", "difference [95 %]")
"""Heads of the columns that `line_texts` fills."""

_UNITS = {"standard deviation": "", "10^9": "× 10⁹", "10^6": "× 10⁶"}


def effect_text(numbers: Summary, unit: str, *, digits: int = 2) -> str:
    """Format a mean over seeds: "+1.42 points [+1.10, +1.71] (3 seeds)"."""
    if numbers.n == 0:
        return f"no value in {unit}: {numbers.num_diverged} diverged"
    mean = number_text(
        numbers.mean, digits=digits, signed=True, unit=unit, interval=numbers.interval
    )
    no_interval = ": no interval" if numbers.interval is None else ""
    return f"{mean} ({count_text(numbers.n, numbers.num_diverged)}{no_interval})"


def comparison_text(comparison: Comparison, *, digits: int = 2) -> str:
    """Format a difference of paired runs: "+1.23 [+0.50, +1.96]"."""
    return number_text(
        comparison.difference,
        digits=digits,
        signed=True,
        interval=comparison.interval,
        no_interval="(one seed: no interval)",
    )


def means_text(depths: Sequence[int], curves: Sequence[Sequence[float]]) -> str:
    """Format the mean error of each depth: "1.2, 9.4, 81.0 % at 8, 20, 56 layers"."""
    means = [mean_of(values) for values in zip(*curves, strict=True)]
    numbers = ", ".join("diverged" if math.isnan(mean) else f"{mean:.1f}" for mean in means)
    return f"{numbers} % at {', '.join(map(str, depths))} layers"


def line_texts(line: Line) -> tuple[str, str, str]:
    """Return the texts of a line below `HEADS`: the paper's number, ours, and the difference."""
    unit = _UNITS.get(line.unit, line.unit)
    paper = ""
    if line.paper is not None:
        number = f"{line.paper:.2f}" if line.unit == "%" else f"{line.paper:g}"
        paper = f"{number} {unit}"
    return paper, _our_text(line, unit), _difference_text(line)


def _our_text(line: Line, unit: str) -> str:
    numbers = line.summary
    if numbers is None:
        return ""
    if not numbers.n:
        return "no result"
    # Without a number of the paper, the difference is all there is, and the interval stands beside
    # it.
    interval = numbers.interval if line.paper is not None else None
    text = number_text(
        numbers.mean,
        digits=_digits(line),
        unit=unit,
        deviation=numbers.standard_deviation,
        interval=interval,
    )
    is_count = line.unit.startswith("10^")  # without randomness there are no seeds to count
    num_seeds = "" if is_count else f" ({numbers.n})"
    lost = f", {numbers.num_diverged} without a result" if numbers.num_diverged else ""
    return f"{text}{num_seeds}{lost}"


def _difference_text(line: Line) -> str:
    if line.difference is None:
        return ""
    return number_text(
        line.difference,
        digits=_digits(line),
        signed=True,
        interval=line.interval,
        confidence=line.confidence,
    )


def _digits(line: Line) -> int:
    return 3 if line.unit in ("10^9", "10^6", "standard deviation") else 2


def reasons_of(lines: Iterable[Line]) -> list[str]:
    """Return one sentence per reason of a verdict. Lines with the same reason share a sentence."""
    lines_by_reason: dict[str, list[str]] = {}
    for line in lines:
        if line.because:
            lines_by_reason.setdefault(line.because, []).append(line.what)
    sentences = []
    for reason, (first, *further) in lines_by_reason.items():
        more = f" and {len(further)} more" if further else ""
        sentences.append(f"{first}{more}: {reason}")
    return sentences


def mean_of(values: Iterable[float]) -> float:
    """Return the mean of the finite values; nan if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def or_none(value: float) -> float | None:
    """Return None for nan and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
