"""All metrics of a set of predictions agree with `evaluate`, and become plain JSON."""

import json

import pytest
import torch
from torch import nn

from reslearn.evaluate import (
    Predictions,
    detailed_metrics,
    evaluate,
    most_confident_mistakes,
    predict,
)


def predictions(num_images: int = 200, num_classes: int = 4) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, num_classes, (num_images,), generator=generator)
    logits = torch.randn(num_images, num_classes, generator=generator)
    logits[torch.arange(num_images), labels] += 1.5
    return Predictions(logits=logits, labels=labels)


def test_accuracy_and_loss_are_those_of_evaluate() -> None:
    values = predictions(num_classes=12)
    metrics = evaluate(nn.Identity(), [(values.logits, values.labels)])
    detailed = detailed_metrics(values, [f"class {number}" for number in range(12)])
    assert detailed.accuracy.pct == pytest.approx(100 - metrics.top1_error_pct)
    assert detailed.top5_accuracy is not None
    assert detailed.top5_accuracy.pct == pytest.approx(100 - metrics.top5_error_pct)
    assert detailed.calibration.loss == pytest.approx(metrics.loss, rel=1e-6)
    assert detailed.scaled_calibration is None


@pytest.mark.parametrize(("num_classes", "has_top5"), [(10, False), (11, True)])
def test_top5_needs_more_than_ten_classes(num_classes: int, has_top5: bool) -> None:
    detailed = detailed_metrics(predictions(num_classes=num_classes), ["x"] * num_classes)
    assert (detailed.top5_accuracy is not None) == has_top5


def test_json_is_sparse_and_complete() -> None:
    detailed = detailed_metrics(predictions(), "abcd", temperature=1.7)
    record = json.loads(json.dumps(detailed.to_json(), allow_nan=False))
    assert sum(count for _, _, count in record["confusion"]) == record["num_images"] == 200
    assert all(
        detailed.confusion[label, prediction] == count > 0
        for label, prediction, count in record["confusion"]
    )
    assert [one["name"] for one in record["classes"]] == ["a", "b", "c", "d"]
    assert record["scaled_calibration"]["temperature"] == 1.7
    assert record["calibration"]["temperature"] == 1.0
    assert record["accuracy"]["low_pct"] < record["accuracy"]["pct"]


def test_the_temperature_does_not_change_a_prediction() -> None:
    values = predictions()
    assert torch.equal(values.probabilities(2.5).argmax(1), values.predicted)
    assert (values.probabilities(2.5).amax(1) < values.probabilities().amax(1)).all()


def test_predict_restores_the_mode_and_keeps_the_order() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    values = predictions()
    batches = zip(values.logits.split(30), values.labels.split(30), strict=True)
    copy = predict(network, batches)
    assert network.training
    assert torch.equal(copy.logits, values.logits) and torch.equal(copy.labels, values.labels)
    with pytest.raises(ValueError, match="no images"):
        predict(network, [])


def test_mistakes_are_sorted_by_confidence() -> None:
    values = Predictions(
        logits=torch.tensor([[2.0, 0], [0, 1], [9, 0], [0, 3]]), labels=torch.tensor([1, 0, 0, 0])
    )
    confidences = values.probabilities().amax(1)
    assert most_confident_mistakes(values, confidences, 5).tolist() == [3, 0, 1]
    assert most_confident_mistakes(values, confidences, 2).tolist() == [3, 0]
