"""The rules of a depth study: which networks are given up, which one is recommended, and why."""

import math

import pytest

from reslearn.study.depth import Rung, depth_of, depth_verdict, ladder, survivors


def rung(depth: int, *errors: float) -> Rung:
    return Rung(model=f"resnet{depth}", depth=depth, errors=dict(enumerate(errors)))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet20", "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56"),
        ("plain56", "plain8 plain14 plain20 plain32 plain44 plain56"),
        ("resnet18", "resnet18 resnet34 resnet50 resnet101"),
        ("resnet50", "resnet18 resnet34 resnet50 resnet101"),
        ("resnet34d", "resnet18d resnet34d resnet50d resnet101d"),
        ("resnetv2_18", "resnetv2_18 resnetv2_34 resnetv2_50 resnetv2_101"),
    ],
)
def test_the_ladder_has_the_depths_of_the_family(model: str, names: str) -> None:
    assert ladder(model) == tuple(names.split())
    assert depth_of("resnetv2_18") == 18


def test_depths_that_are_given_replace_the_ladder() -> None:
    assert ladder("resnet20", [56, 8, 8]) == ("resnet8", "resnet56")
    with pytest.raises(ValueError, match="two or more depths"):
        ladder("resnet20", [8, 8])
    with pytest.raises(ValueError, match="wrn28_10 has no ladder"):
        ladder("wrn28_10")


@pytest.mark.parametrize(
    ("error", "num_images", "goes_on"),
    [
        # 1,000,000 images have almost no sampling error: the margin of 2 points decides.
        (12.0, 1_000_000, True),
        (12.3, 1_000_000, False),
        # 400 images: 3 standard errors of the difference between 10 and 16.6 % are 7.2 points.
        (16.6, 400, True),
        (18.0, 400, False),
        (math.inf, 400, False),
    ],
)
def test_a_network_that_is_clearly_worse_is_given_up(
    error: float, num_images: int, goes_on: bool
) -> None:
    alive = survivors([rung(8, error), rung(20, 10.0)], num_images=num_images, margin_pct=2.0)
    assert alive == (("resnet8", "resnet20") if goes_on else ("resnet20",))


def test_more_seeds_count_as_more_images() -> None:
    rungs = [rung(8, 15.0, 15.0, 15.0, 15.0), rung(20, 10.0, 10.0, 10.0, 10.0)]
    assert survivors(rungs, num_images=100) == ("resnet8", "resnet20")
    assert survivors(rungs, num_images=400) == ("resnet20",)


@pytest.mark.parametrize(
    ("excess", "smallest"),
    [
        # The differences from the best vary by 0.2: the interval is the mean +- 0.34.
        ((1.4, 1.6, 1.8), "resnet8"),  # ends at 1.94
        ((1.5, 1.7, 1.9), "resnet20"),  # ends at 2.04
    ],
)
def test_the_smallest_network_that_is_not_worse_by_the_margin_is_recommended(
    excess: tuple[float, ...], smallest: str
) -> None:
    shallow = rung(8, *(10 + difference for difference in excess))
    verdict = depth_verdict([shallow, rung(20, 10.0, 10.0, 10.0)], margin_pct=2.0)
    assert (verdict.best, verdict.smallest) == ("resnet20", smallest)
    if smallest == "resnet8":
        assert "not worse than resnet20, the best, by 2 points: +1.60 points" in verdict.reason
    else:
        assert "undecided: resnet8" in verdict.reason


def test_the_smallest_network_may_be_the_best() -> None:
    verdict = depth_verdict([rung(8, 9.0, 9.1), rung(20, 10.0, 10.0)])
    assert verdict.smallest == "resnet8"
    assert verdict.reason.startswith("resnet8, the smallest, has the lowest error")


@pytest.mark.parametrize(
    ("gains", "answer", "reason"),
    [
        ((3.0, 3.1, 3.2), "yes", "try deeper networks"),
        ((0.0, 0.1, 0.2), "no", "which is less than 2 points"),
        ((-1.0, 1.0, 3.0), "undecided", "to see 2 points on these images takes"),
        ((-3.0, -3.1, -3.2), "no", "the error of resnet20 minus that of resnet56 is -3.10"),
    ],
)
def test_more_depth_pays_if_the_deepest_network_is_certainly_better(
    gains: tuple[float, ...], answer: str, reason: str
) -> None:
    deep = rung(56, *(20 - gain for gain in gains))
    verdict = depth_verdict([rung(20, 20.0, 20.0, 20.0), deep], margin_pct=2.0)
    assert verdict.deeper == answer and reason in verdict.deeper_reason


def test_networks_that_were_given_up_or_diverged_are_not_recommended() -> None:
    rungs = [rung(8, 9.0), rung(20, 10.0, 10.1), rung(56, 10.0, math.inf)]
    verdict = depth_verdict(rungs)
    assert verdict.best == "resnet20" and verdict.given_up == ("resnet8",)
    only_deepest = depth_verdict([rung(8, 9.0, 9.0), rung(20, 30.0)])
    assert only_deepest.deeper == "no" and "given up" in only_deepest.deeper_reason
    with pytest.raises(ValueError, match="no network of the ladder has a finite error"):
        depth_verdict([rung(8, math.inf)])
