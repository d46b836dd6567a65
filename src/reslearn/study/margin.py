"""Three-way decisions: every "yes", "no" or "undecided" of the project is decided here.

A verdict compares a confidence interval with a margin, which is the smallest effect that counts.
Comparisons are strict: a value that equals a margin does not pass it. The one exception is
`no_at_margin`, for rules whose text says "ends at or below the margin".
"""

from typing import Literal

from reslearn.study.estimate import Interval

Answer = Literal["yes", "no", "undecided"]


def margin_test(
    interval: Interval | None,
    margin: float,
    *,
    mean: float | None = None,
    no_margin: float | None = None,
    no_at_margin: bool = False,
) -> Answer:
    """Decide whether an effect is larger than `margin`.

    The rule:

    - "yes" without `mean`: the whole interval lies above `margin`.
    - "yes" with `mean`: the whole interval lies above 0, so there is an effect, and the mean is
      above `margin`, so the effect is large enough to count.
    - "no": the whole interval lies below `no_margin`.
    - "undecided": everything else, and a missing interval.

    For an effect in the negative direction, pass `interval.scaled_by(-1)`.

    Args:
        interval: Confidence interval of the effect. None if there are too few values for one.
        margin: The effect must exceed this value, in the unit of the interval.
        mean: Point estimate of the effect. Selects the second form of "yes".
        no_margin: An effect below this value is a "no". Default: `margin`.
        no_at_margin: An interval that ends exactly at `no_margin` is a "no" as well.

    Raises:
        ValueError: If `no_margin` is above `margin`: an interval could mean both "yes" and "no".
    """
    no_margin = margin if no_margin is None else no_margin
    if no_margin > margin:
        raise ValueError(
            f"no_margin = {no_margin} is above margin = {margin}: "
            "an interval between them would be both a yes and a no; pass at most the margin"
        )
    if interval is None:
        return "undecided"
    is_clear = interval.low > (margin if mean is None else 0)
    is_large = mean is None or mean > margin
    if is_clear and is_large:
        return "yes"
    is_denied = interval.high < no_margin or (no_at_margin and interval.high == no_margin)
    return "no" if is_denied else "undecided"


def equivalence_test(interval: Interval | None, margin: float) -> Answer:
    """Decide whether an effect is smaller than `margin` in both directions.

    The rule:

    - "yes": the whole interval lies between -margin and +margin.
    - "no": the whole interval lies above +margin, or below -margin.
    - "undecided": everything else, and a missing interval.

    A 90 % interval gives the two one-sided tests at 5 % of `equivalence`. A 95 % interval is
    stricter.
    """
    if interval is None:
        return "undecided"
    if -margin < interval.low and interval.high < margin:
        return "yes"
    return "no" if interval.low > margin or interval.high < -margin else "undecided"


def withhold(answer: Answer, *, rules_out_yes: bool = False, rules_out_no: bool = False) -> Answer:
    """Replace `answer` by "undecided" if runs without a result could have changed it.

    Statistics leave out diverged runs, and no verdict may gain from that. For example, leaving out
    a diverged run of a shallow network makes depth look harmful, so that "yes" must be withheld.

    Args:
        answer: The answer over the remaining runs.
        rules_out_yes: Whether the missing runs rule out a "yes".
        rules_out_no: Whether the missing runs rule out a "no".
    """
    is_withheld = (answer == "yes" and rules_out_yes) or (answer == "no" and rules_out_no)
    return "undecided" if is_withheld else answer
