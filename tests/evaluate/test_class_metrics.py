"""Metrics of classes: the values of scikit-learn, intervals, empty classes, a thousand classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_confusion

from reslearn.evaluate import class_means, class_metrics, confusion_matrix, f1_share, share

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0])


@given(seed=st.integers(0, 1000), num_images=st.integers(1, 60))
def test_values_are_those_of_scikit_learn(seed: int, num_images: int) -> None:
    random = np.random.default_rng(seed)
    labels, predicted = random.integers(0, 4, (2, num_images))
    confusion = confusion_matrix(labels, predicted, 4)
    assert (confusion == sklearn_confusion(labels, predicted, labels=range(4))).all()
    metrics = class_metrics(confusion, "abcd")
    expected = precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=np.nan
    )
    for index, one in enumerate(metrics):
        assert one.num_images == expected[3][index]
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            pct = getattr(one, name).pct
            if pct is None:
                assert np.isnan(values[index])
            else:
                assert pct == pytest.approx(100 * values[index])


def test_means_over_classes_are_those_of_scikit_learn() -> None:
    recall, f1 = class_means(confusion_matrix(LABELS, PREDICTED, 3))
    assert recall.pct == pytest.approx(100 * balanced_accuracy_score(LABELS, PREDICTED))
    assert f1.pct == pytest.approx(100 * f1_score(LABELS, PREDICTED, average="macro"))
    for mean in (recall, f1):
        assert 30 < mean.low_pct < mean.pct < mean.high_pct < 100, "ten images: a wide interval"
    assert class_means(confusion_matrix(LABELS, PREDICTED, 3)) == (recall, f1), "the same draws"


def test_classes_without_images_are_left_out_of_means() -> None:
    recall, f1 = class_means(confusion_matrix(LABELS, PREDICTED, 3))
    with_empty = class_means(confusion_matrix(LABELS, PREDICTED, 5))
    assert [mean.pct for mean in with_empty] == [recall.pct, f1.pct]


def test_means_without_any_mistake_have_no_interval() -> None:
    recall, f1 = class_means(confusion_matrix(LABELS, LABELS, 3))
    assert (recall.pct, recall.low_pct, recall.high_pct) == (100, None, None)
    assert f1 == recall


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (7, 7), (3, 7), (90, 100)])
def test_intervals_of_shares_are_exact_binomial_ones(hits: int, trials: int) -> None:
    exact = binomtest(hits, trials).proportion_ci(method="exact")
    value = share(hits, trials)
    assert (value.pct, value.low_pct, value.high_pct) == pytest.approx(
        (100 * hits / trials, 100 * exact.low, 100 * exact.high)
    )


def test_a_share_of_nothing_is_none() -> None:
    assert share(0, 0).pct is share(0, 0).low_pct is None
    assert f1_share(0, 0).pct is None
    metrics = class_metrics(np.array([[3, 0], [0, 0]]), ("seen", "never"))
    assert metrics[1].recall.pct is metrics[1].precision.pct is metrics[1].f1.pct is None
    assert metrics[0].f1.pct == 100


def test_the_interval_of_f1_holds_the_true_f1() -> None:
    """TP, FP and FN of samples of 80 images; the exact interval may hold it more often."""
    random = np.random.default_rng(0)
    shares = np.array([0.3, 0.08, 0.12, 0.5])  # TP, FP, FN, TN
    true_pct = 100 * 0.6 / (0.6 + 0.08 + 0.12)
    draws = random.multinomial(80, shares, size=400)
    held = 0
    for right, false_positives, false_negatives, _ in draws.tolist():
        value = f1_share(right, right + false_positives + false_negatives)
        assert value.low_pct < value.pct < value.high_pct
        held += value.low_pct <= true_pct <= value.high_pct
    assert held / len(draws) > 0.93
    # An interval of F1 that took u = TP / (TP + FP + FN) for F1 itself would not hold it.
    naive = [share(right, right + fp + fn) for right, fp, fn, _ in draws.tolist()]
    assert sum(one.low_pct <= true_pct <= one.high_pct for one in naive) / len(draws) < 0.7


def test_a_thousand_classes_take_no_square_of_memory_in_the_draws() -> None:
    labels = np.repeat(np.arange(1000), 3)
    predicted = np.where(np.arange(3000) % 3 == 0, (labels + 1) % 1000, labels)
    recall, f1 = class_means(confusion_matrix(labels, predicted, 1000))
    assert recall.pct == pytest.approx(200 / 3)
    assert recall.low_pct < 200 / 3 < recall.high_pct
    assert f1.high_pct - f1.low_pct < 10
