"""Calibration: values by hand, calibrated and overconfident samples, and the fitted temperature."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from reslearn.evaluate import calibration, fit_temperature
from reslearn.evaluate.calibration import num_bins


def sample(num_images: int, *, temperature: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and labels whose best temperature is `temperature`, up to chance."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num_images, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * temperature, labels


def test_values_by_hand() -> None:
    """Two bins: confidences 0.6 with 40 % right, 0.9 with 80 % right, 50 images each."""
    logits = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log().repeat_interleave(50, 0)
    labels = torch.tensor([0] * 20 + [1] * 30 + [0] * 40 + [1] * 10)
    value = calibration(logits, labels)
    assert [one.num_images for one in value.bins] == [50, 50]
    assert [one.mean_confidence_pct for one in value.bins] == pytest.approx([60, 90])
    assert [one.accuracy.pct for one in value.bins] == [40, 80]
    assert value.ece.pct == pytest.approx((20 + 10) / 2)
    assert value.mean_confidence_pct == pytest.approx(75)
    assert value.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-6)


@pytest.mark.parametrize(("num_images", "bins"), [(1, 1), (99, 1), (100, 2), (749, 14), (750, 15)])
def test_bins_hold_at_least_fifty_images(num_images: int, bins: int) -> None:
    assert num_bins(num_images) == bins
    logits, labels = sample(num_images, temperature=1)
    sizes = [one.num_images for one in calibration(logits, labels).bins]
    assert sum(sizes) == num_images and max(sizes) - min(sizes) <= 1


def test_a_calibrated_network_is_not_accused() -> None:
    value = calibration(*sample(1000, temperature=1))
    assert value.ece.pct <= value.chance_ece_pct
    assert value.ece.low_pct == 0
    assert value.ece.pct > 0, "chance alone gives an ECE above zero"


def test_an_overconfident_network_is_accused_and_its_temperature_helps() -> None:
    logits, labels = sample(2000, temperature=3)
    value = calibration(logits, labels)
    assert value.ece.low_pct > value.chance_ece_pct
    assert value.ece.low_pct < value.ece.pct < value.ece.high_pct
    temperature = fit_temperature(*sample(2000, temperature=3, seed=1))
    scaled = calibration(logits, labels, temperature=temperature)
    assert temperature == pytest.approx(3, rel=0.1)
    assert scaled.loss < value.loss and scaled.ece.pct < value.ece.pct / 3


@pytest.mark.parametrize("temperature", [0.3, 1.5, 7.0])
def test_the_temperature_has_the_lowest_cross_entropy(temperature: float) -> None:
    logits, labels = sample(500, temperature=temperature)
    best = minimize_scalar(
        lambda log: float(functional.cross_entropy(logits.double() / math.exp(log), labels)),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(best.x), rel=1e-3)


def test_sums_over_processes_decide_the_temperature() -> None:
    """A second process with the same images changes nothing, and makes 25 images enough."""
    logits, labels = sample(50, temperature=2)
    alone = fit_temperature(logits, labels)
    assert fit_temperature(logits, labels, total=lambda values: 2 * values) == alone
    assert fit_temperature(logits[:25], labels[:25]) is None
    assert fit_temperature(logits[:25], labels[:25], total=lambda values: 2 * values) is not None


def test_no_temperature_is_fitted_without_an_optimum() -> None:
    logits, _ = sample(200, temperature=1)
    assert fit_temperature(logits, logits.argmax(1)) is None, "all right: more confidence pays"
    assert fit_temperature(logits, logits.argmin(1)) is None, "all wrong: none pays"


def test_a_temperature_is_used_only_if_the_loss_falls_by_more_than_chance() -> None:
    """Of perfectly calibrated networks, the test of likelihoods changes one in twenty."""
    fitted = [fit_temperature(*sample(100, temperature=1, seed=seed)) for seed in range(200)]
    assert 2 <= sum(temperature is not None for temperature in fitted) <= 20
    logits, labels = torch.tensor([[2.0, 0.0]]).repeat(100, 1), torch.zeros(100, dtype=torch.int64)
    # The confidence is 0.881. With 7 and 6 mistakes the likelihood ratio is 2.7 and 4.0.
    for num_wrong, is_fitted in ((12, False), (7, False), (6, True)):
        labels[:] = 0
        labels[:num_wrong] = 1
        assert (fit_temperature(logits, labels) is not None) == is_fitted


def test_no_temperature_is_fitted_on_fewer_than_fifty_images() -> None:
    logits, labels = sample(50, temperature=2)
    assert fit_temperature(logits, labels) is not None
    assert fit_temperature(logits[:49], labels[:49]) is None


def test_no_images_are_one_line() -> None:
    with pytest.raises(ValueError, match="no images"):
        calibration(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
