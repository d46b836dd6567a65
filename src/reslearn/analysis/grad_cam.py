"""Grad-CAM: which parts of an image speak for a class (Selvaraju et al. 2017, arXiv 1610.02391).

The maps are the output of the last stage, which the head pools (`Network.forward_features`). The
gradient of the logit of the class, averaged over positions, weights the channels. The heat map is
the positive part of the weighted sum (Eq. 1 and 2). For global average pooling and one fully
connected layer these weights are the weights of the layer, as in CAM (Zhou et al. 2016).

Shapes: images x [B, C, H, W]; heat maps [B, h, w] with the size of the maps of the last stage.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from reslearn.models import Network

_HEAT_COLOR = (255, 80, 0)


def grad_cam(
    net: Network, x: Float32[Tensor, "b c h w"], classes: Int64[Tensor, b]
) -> Float32[Tensor, "b _ _"]:
    """Return one heat map for each image, scaled so that its greatest value is 1.

    A map is zero if nothing in the image speaks for the class. The network is evaluated in
    evaluation mode, and neither its mode nor its gradients change.

    Args:
        net: The network.
        x: Images, preprocessed.
        classes: The class that each heat map explains.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            maps = net.forward_features(x)
        maps = maps.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            logits = _pool_and_classify(net, maps)
            of_classes = logits.gather(1, classes[:, None]).sum()
            (gradients,) = torch.autograd.grad(of_classes, maps)
    finally:
        for module, training in modes.items():
            module.training = training
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(1).clamp_min(0)
    greatest = heat.amax(dim=(1, 2), keepdim=True)
    return (heat / greatest.clamp_min(torch.finfo(heat.dtype).tiny)).float()


def draw_heat_map(
    picture: UInt8[Tensor, "s s c"], heat: Float32[Tensor, "h w"]
) -> npt.NDArray[np.uint8]:
    """Return the picture in gray, with the heat map in orange over it, uint8 [S, S, 3]."""
    size = picture.shape[:2]
    heat = functional.interpolate(heat[None, None], size, mode="bilinear")[0, 0, :, :, None]
    gray = picture.float().mean(2, keepdim=True)
    color = torch.tensor(_HEAT_COLOR, dtype=torch.float32)
    strength = 0.7 * heat
    return ((1 - strength) * gray + strength * color).round().to(torch.uint8).numpy()


def _pool_and_classify(net: Network, maps: Tensor) -> Tensor:
    """Compute the logits from the output of `Network.forward_features`."""
    names = [name for name, _ in net.head.named_children()]
    for name in names[names.index("pool") :]:
        maps = net.head.get_submodule(name)(maps)
    return maps
