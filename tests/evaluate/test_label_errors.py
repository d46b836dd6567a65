"""Suspected labels: the rule by hand, planted errors found first, few clean labels accused."""

import pytest
import torch

from reslearn.evaluate import suspected_labels
from reslearn.evaluate.label_errors import class_thresholds

# Thresholds: class 0 has mean(0.9, 0.7, 0.2) = 0.6, class 1 has mean(0.8, 0.4) = 0.6.
PROBABILITIES = torch.tensor(
    [[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]]
)
LABELS = torch.tensor([0, 0, 0, 1, 1])


def test_the_rule_by_hand() -> None:
    assert class_thresholds(PROBABILITIES, LABELS).tolist() == pytest.approx([0.6, 0.6, torch.inf])
    suspects = suspected_labels(PROBABILITIES, LABELS)
    assert [(one.image, one.label, one.suggestion) for one in suspects] == [(2, 0, 1), (4, 1, 0)]
    assert (suspects[0].label_pct, suspects[0].suggestion_pct) == pytest.approx((20, 80))


def test_a_mistake_below_the_threshold_is_no_suspect() -> None:
    probabilities = PROBABILITIES.clone()
    probabilities[4] = torch.tensor([0.55, 0.45, 0.0])  # class 0 needs 0.6
    assert [one.image for one in suspected_labels(probabilities, LABELS)] == [2]


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = torch.tensor([[0.1, 0.0, 0.9], [0.8, 0.2, 0.0]])
    assert suspected_labels(probabilities, torch.tensor([0, 1])) == suspected_labels(
        probabilities[:, :3], torch.tensor([0, 1])
    )
    assert all(one.suggestion != 2 for one in suspected_labels(probabilities, torch.tensor([0, 1])))


def test_planted_errors_are_found_first() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (400,), generator=generator)
    logits = torch.randn(400, 5, generator=generator)
    logits[torch.arange(400), truth] += 7
    labels = truth.clone()
    labels[:20] = (labels[:20] + 1) % 5
    clean = suspected_labels(logits.softmax(1), truth)
    suspects = suspected_labels(logits.softmax(1), labels)
    assert len(clean) < 8
    assert len({one.image for one in suspects} & set(range(20))) >= 18
    assert {one.image for one in suspects[:12]} <= set(range(20)), "most suspicious first"
