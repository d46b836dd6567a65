"""The page of a depth study: the recommended network, and error against depth, time and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reslearn.report.content import Column, Figure, Page, Panels, Section, Series, Table
from reslearn.report.curves import interval_note
from reslearn.report.study import study_page
from reslearn.study import Collection, interval_text
from reslearn.study.depth import DepthVerdict, Rung

_BYTES_PER_PARAMETER = 4


def depth_page(
    collection: Collection,
    rungs: Sequence[Rung],
    verdict: DepthVerdict,
    *,
    parameters: Mapping[str, int],
    latency_ms: Mapping[str, float],
    margin_pct: float,
    title: str,
) -> Page:
    """Return the page of a depth study.

    Args:
        collection: The runs.
        rungs: The networks with their validation errors, from shallow to deep.
        verdict: The verdict on them.
        parameters: Number of parameters of each network.
        latency_ms: Median time of a forward pass of one image.
        margin_pct: Margin of the verdict, in points of validation error.
        title: Title of the page.
    """
    page = study_page(collection, title=title)
    depth, latency, size = _figures(rungs, parameters, latency_ms)
    recommendation = Section(
        "How deep?",
        f"Recommended: {verdict.smallest}. {_sentence(verdict.reason)} "
        f"Would more depth pay? {verdict.deeper.capitalize()}: {_sentence(verdict.deeper_reason)}",
        [_table(rungs, verdict, parameters, latency_ms, margin_pct)],
    )
    return replace(
        page,
        subtitle=_subtitle(verdict),
        sections=[recommendation, Section("Size", "", [size]), *page.sections],
        lead=Panels([depth, latency]),
    )


def _subtitle(verdict: DepthVerdict) -> str:
    if verdict.best == verdict.contrasts[0].model:
        return f"{verdict.best}, the smallest network, has the lowest validation error."
    if verdict.smallest == verdict.best:
        return (
            f"{verdict.best} has the lowest validation error, and no smaller network is shown to "
            "be as good."
        )
    return (
        f"{verdict.smallest} is the smallest network that is not worse than {verdict.best}, "
        "the best."
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(
    rungs: Sequence[Rung],
    verdict: DepthVerdict,
    parameters: Mapping[str, int],
    latency_ms: Mapping[str, float],
    margin_pct: float,
) -> Table:
    contrasts = {contrast.model: contrast for contrast in verdict.contrasts}
    rows = []
    for rung in rungs:
        contrast = contrasts.get(rung.model)
        difference, answer = None, "given up"
        if contrast is not None:
            answer = "the best" if contrast.comparison is None else contrast.answer
            if contrast.comparison is not None:
                difference = contrast.comparison.difference
        interval = rung.summary.interval if rung.summary else None
        rows.append(
            (
                rung.model,
                len(rung.errors),
                rung.mean,
                interval_text(interval),
                difference,
                answer,
                latency_ms.get(rung.model),
                parameters.get(rung.model, 0) * _BYTES_PER_PARAMETER / 1e6 or None,
            )
        )
    columns: list[Column | str] = [
        "network",
        Column("seeds", numeric=True),
        Column("validation error (%)", ".2f", True),
        Column("95 % interval", numeric=True),
        Column("above the best", "+.2f", True),
        "not worse",
        Column("ms per image", ".2f", True),
        Column("MB", ".2f", True),
    ]
    caption = (
        "A network is not worse if the one-sided 95 % interval of its difference from the best, "
        f"paired by seed, ends below {margin_pct:g} points. The rule was fixed before the data "
        "were seen. Intervals are over seeds, on the same validation images."
    )
    return Table(caption, columns, rows)


def _figures(
    rungs: Sequence[Rung], parameters: Mapping[str, int], latency_ms: Mapping[str, float]
) -> list[Figure]:
    axes = {
        "depth": ("layers", {rung.model: float(rung.depth) for rung in rungs}),
        "latency": ("milliseconds per image", dict(latency_ms)),
        "size": (
            "megabytes",
            {name: number * _BYTES_PER_PARAMETER / 1e6 for name, number in parameters.items()},
        ),
    }
    num_seeds = [len(rung.errors) for rung in rungs if rung.errors]
    figures = []
    for name, (label, positions) in axes.items():
        placed = [rung for rung in rungs if rung.model in positions and rung.summary is not None]
        placed.sort(key=lambda rung: positions[rung.model])
        intervals = [rung.summary.interval if rung.summary else None for rung in placed]
        figures.append(
            Figure(
                name=f"error-against-{name}",
                title=f"Validation error against {name}",
                caption="Each point is a network: "
                + ", ".join(rung.model for rung in placed)
                + "."
                + interval_note(*num_seeds),
                x_label=label,
                y_label="validation error (%)",
                series=[
                    Series(
                        "mean of the seeds",
                        [positions[rung.model] for rung in placed],
                        [rung.mean for rung in placed],
                        low=[interval and interval.low for interval in intervals],
                        high=[interval and interval.high for interval in intervals],
                    )
                ],
            )
        )
    return figures
