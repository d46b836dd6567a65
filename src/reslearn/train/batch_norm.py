"""Batch norm written for the compiler on the CPU: the same function as torch's, its statistics kept in float32, in fewer cycles.

Left to itself the compiler rounds the saved mean and scale to bf16 for the backward pass, and adds up all pixels of a batch one
after another. Here each image's pixels are added up first, then the images, all in float32 (worth: LOG.md).
Shapes: x [B, C, H, W] in any precision; mean, variance, weight and bias [C], float32.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@final
class BatchNormInFloat32(TorchFunctionMode):
    """Within this context a batch norm over images that trains on the CPU is computed by `batch_norm`; all else is left as it is."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.batch_norm and _is_ours(*args, **(kwargs or {})):
            return batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _is_ours(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> bool:
    known = None not in (running_mean, running_var, weight, bias)
    return (
        training and known and x.ndim == 4 and x.device.type == "cpu" and x.numel() > x.shape[1]
    )  # one value has no variance


def batch_norm(
    x: Float[Tensor, "B C H W"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "B C H W"]:
    """`torch.nn.functional.batch_norm` in training: (x - mean) / sqrt(var + eps) * weight + bias; running statistics are moved."""
    assert training
    normalized, mean, var = _Normalize.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    num = x.numel() // x.shape[1]
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (num / (num - 1)), momentum)
    assert isinstance(normalized, Tensor)
    return normalized


class _Normalize(torch.autograd.Function):
    """Forward: y = x a + (bias - mean a) with a = weight / sqrt(var + eps). Backward: dx = g a + x c + d, two numbers a channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.float()
        var_of_image, mean_of_image = torch.var_mean(wide, (2, 3), correction=0)
        mean = mean_of_image.mean(0)
        var = var_of_image.mean(0) + (mean_of_image - mean).square().mean(0)
        rstd = torch.rsqrt(var + eps)
        a = weight * rstd
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, var)
        return (wide * _by_channel(a) + _by_channel(bias - mean * a)).to(x.dtype), mean, var

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor, _var: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        num = x.numel() // x.shape[1]
        g, wide = grad.float(), x.float()
        grad_bias = _sum(g)
        grad_weight = _sum(g * (wide - _by_channel(mean))) * rstd
        a = weight * rstd
        c = -a * rstd * grad_weight / num
        d = -a * grad_bias / num - c * mean
        return (
            (g * _by_channel(a) + wide * _by_channel(c) + _by_channel(d)).to(x.dtype),
            grad_weight,
            grad_bias,
            None,
        )


def _sum(values: Tensor) -> Tensor:
    return values.sum((2, 3)).sum(0)


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
