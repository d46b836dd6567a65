"""Probes read present information, with the same dimension for all stages (claim C14)."""

import pytest
import torch

from reslearn.analysis import probes
from reslearn.models import build


def _images(
    num_images: int, *, readable: bool, seed: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return images of two classes. If readable, class 1 has a bright upper left quarter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 2
    x = torch.randn(num_images, 1, 8, 8, generator=generator)
    if readable:
        x[:, :, :4, :4] += 3 * labels[:, None, None, None]
    return [(x[:50], labels[:50]), (x[50:], labels[50:])]


def test_a_probe_reads_present_information_only() -> None:
    net = build("resnet8", num_classes=2, in_channels=1)
    there = probes(
        net, _images(200, readable=True, seed=1), _images(200, readable=True, seed=2), dimension=8
    )
    absent = probes(
        net, _images(200, readable=False, seed=1), _images(200, readable=False, seed=2), dimension=8
    )
    assert [probe.stage for probe in there] == ["stem", "stage1", "stage2", "stage3"]
    assert all(probe.test_error_pct < 5 for probe in there)
    assert all(30 < probe.test_error_pct < 70 for probe in absent)


def test_all_stages_have_the_dimension_of_the_narrowest() -> None:
    net = build("plain8", num_classes=2, in_channels=1)
    train, test = _images(120, readable=True, seed=1), _images(60, readable=True, seed=2)
    assert {probe.dimension for probe in probes(net, train, test, dimension=1000)} == {16}
    first = probes(net, train, test, dimension=8)
    assert {probe.dimension for probe in first} == {8}
    assert probes(net, train, test, dimension=8) == first


def test_impossible_arguments_are_refused() -> None:
    net = build("plain8", num_classes=2, in_channels=1)
    with pytest.raises(ValueError, match="dimension = 0"):
        probes(net, [], [], dimension=0)
    with pytest.raises(ValueError, match="no image"):
        probes(net, [], [])
