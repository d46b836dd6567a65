"""A pickled module states strides, dilation and epsilon of its layers, and these are compared."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import WeightsError, identify, identify_checkpoint, load_network

sys.path.insert(0, str(Path(__file__).parent))
from layouts import LAYOUTS, checkpoint_of, net_state, small_network

IMAGE = torch.rand(1, 3, 32, 32)


def test_a_module_with_the_usual_settings_is_read(tmp_path: Path) -> None:
    net = small_network()
    torch.save({"net": nn.DataParallel(net)}, tmp_path / "net.pth")
    identity = identify(tmp_path / "net.pth")
    assert not any("epsilon" in note and "have" in note for note in identity.notes)
    assert torch.equal(load_network(identity)(IMAGE), net(IMAGE))


@pytest.mark.parametrize(
    ("setting", "value", "usual"),
    [("dilation", (2, 2), (1, 1)), ("stride", (1, 1), (2, 2)), ("padding", (0, 0), (1, 1))],
)
def test_another_setting_is_refused_with_the_tensor(
    setting: str, value: tuple[int, int], usual: tuple[int, int], tmp_path: Path
) -> None:
    """Networks for segmentation dilate their last stage, and have all names of plain ones."""
    net = small_network()
    setattr(net.get_submodule("stage3.0.body.conv1"), setting, value)
    torch.save(net, tmp_path / "net.pth")
    with pytest.raises(WeightsError) as raised:
        identify(tmp_path / "net.pth")
    reason = f"stage3.0.body.conv1.weight has {setting} {value}, where resnet8 has {usual}"
    assert reason in str(raised.value)


def test_a_setting_of_absurd_size_is_passed_over(tmp_path: Path) -> None:
    net = small_network()
    net.get_submodule("stage3.0.body.conv1").stride = (10**300, 2)
    torch.save(net, tmp_path / "net.pth")
    assert identify(tmp_path / "net.pth").spec["name"] == "resnet8"


def test_another_epsilon_is_noted(tmp_path: Path) -> None:
    net = small_network()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    torch.save(net, tmp_path / "net.pth")
    (note,) = [note for note in identify(tmp_path / "net.pth").notes if "have epsilon" in note]
    assert "have epsilon 0.001" in note


@pytest.mark.parametrize(("convolution", "stride_in"), [("conv1", "1x1"), ("conv2", "3x3")])
@pytest.mark.parametrize("layout", [None, "last_linear", "stem called conv and bn"])
def test_the_stride_of_a_bottleneck_is_read(
    convolution: str, stride_in: str, layout: str | None
) -> None:
    with torch.device("meta"):
        state = net_state(models.build("resnet50", num_classes=7))
    if layout is not None:
        state = LAYOUTS[layout](state)
    settings = {f"layer2.0.{convolution}": {"stride": (2, 2)}}
    checkpoint = replace(checkpoint_of(net=state), layer_settings={"net": settings})
    identity = identify_checkpoint(checkpoint)
    assert (identity.spec["stride_in"], identity.undetermined) == (stride_in, ())
    assert not any("stride in the 1x1" in note for note in identity.notes)
    with pytest.raises(WeightsError, match="the file, or one beside it, states stride_in"):
        identity.with_switches(stride_in=stride_in)
