"""The rules of the parity gate, each just below and just above its limit."""

import numpy as np
import pytest

from reslearn.deploy.parity import compare

REFERENCE = np.array([[0.7, 0.2, 0.1], [0.4, 0.39, 0.21], [0.1, 0.1, 0.8]], np.float32)
LABELS = np.array([0, 0, 2])


def changed(row: int, first: float, second: float) -> np.ndarray:
    """Move probability from the second class of one picture to the first."""
    answers = REFERENCE.copy()
    answers[row] += [first, second, 0]
    return answers


def test_equal_answers_agree() -> None:
    parity = compare(REFERENCE, REFERENCE, tolerance=0.0, labels=LABELS)
    assert parity.problems == ()
    assert (parity.largest_difference, parity.num_different, parity.num_images) == (0, 0, 3)
    assert parity.accuracy_pct == parity.reference_accuracy_pct == 100


def test_a_probability_may_differ_by_the_tolerance() -> None:
    answers = changed(0, -0.05, 0.05)
    assert compare(REFERENCE, answers, tolerance=0.0501).problems == ()
    (problem,) = compare(REFERENCE, answers, tolerance=0.0499).problems
    assert problem == "a probability differs by 0.05, and the tolerance is 0.0499"


def test_the_class_may_differ_only_where_the_margin_is_within_the_tolerance() -> None:
    answers = changed(1, -0.02, 0.02)  # its margin is 0.01
    parity = compare(REFERENCE, answers, tolerance=0.021, labels=LABELS)
    assert (parity.num_different, parity.num_wrong, parity.num_ties) == (1, 0, 1)
    assert parity.problems == (), "one tie allows one lost answer"
    assert parity.accuracy_pct == pytest.approx(200 / 3)
    parity = compare(REFERENCE, answers, tolerance=0.009, labels=LABELS)
    assert (parity.num_wrong, parity.num_ties) == (1, 0)
    assert len(parity.problems) == 3
    assert "1 of 3 pictures have another class" in parity.problems[1]
    assert parity.problems[2] == "the accuracy is 66.67 %, not 100.00 %"


def test_int8_may_lose_some_points_of_accuracy() -> None:
    reference = np.tile([[0.6, 0.4]], (200, 1)).astype(np.float32)
    labels = np.zeros(200, np.int64)
    for num_lost, num_problems in ((2, 0), (3, 1)):
        answers = reference.copy()
        answers[:num_lost] = [0.4, 0.6]
        parity = compare(reference, answers, tolerance=0.25, labels=labels, accuracy_points=1.0)
        assert len(parity.problems) == num_problems
    better = compare(reference, answers, tolerance=0.25, labels=1 - labels, accuracy_points=1.0)
    assert better.problems == ()


def test_answers_that_are_not_finite_never_agree() -> None:
    answers = changed(0, np.nan, 0)
    assert compare(REFERENCE, answers, tolerance=1.0).problems[0] == (
        "a probability is NaN or infinite"
    )
    with pytest.raises(ValueError, match=r"shape \(3, 3\), the answers have \(2, 3\)"):
        compare(REFERENCE, REFERENCE[:2], tolerance=1.0)
