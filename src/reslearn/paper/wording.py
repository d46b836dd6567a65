"""Numbers of the findings as one line for the table of claims: with sign, interval and number of seeds."""

import math

from reslearn.study import Summary


def interval(numbers: Summary, unit: str, *, digits: int = 2) -> str:
    """+1.42 points a layer (95 % interval +1.10 to +1.71, 3 seeds)."""
    if numbers.n == 0:
        return f"no value in {unit}: {numbers.num_diverged} diverged"
    diverged = f", {numbers.num_diverged} diverged" if numbers.num_diverged else ""
    if numbers.interval is None:
        return f"{numbers.mean:+.{digits}f} {unit} ({numbers.n} seed{diverged}: no interval)"
    low, high = numbers.interval
    return f"{numbers.mean:+.{digits}f} {unit} (95 % interval {low:+.{digits}f} to {high:+.{digits}f}, {numbers.n} seeds{diverged})"


def means(at: tuple[int, ...], curves: list[list[float]], *, digits: int = 1) -> str:
    """1.2, 9.4, 81.0 % at 8, 20, 56 layers: means over the seeds that have a value."""
    values = [mean_of([curve[index] for curve in curves]) for index in range(len(at))]
    numbers = ", ".join(
        "diverged" if math.isnan(value) else f"{value:.{digits}f}" for value in values
    )
    return f"{numbers} % at {', '.join(map(str, at))} layers"


def mean_of(values: list[float]) -> float:
    """The mean of the finite ones, nan without any."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def or_none(value: float) -> float | None:
    """JSON has no nan."""
    return value if math.isfinite(value) else None
