"""Two ways to compute batch norm in a training step, in addition to torch's own.

`BatchNormInFloat32` is for the compiler on the CPU. Left alone, the compiler rounds the saved mean
and scale to bf16 for the backward pass, and adds up all pixels of a batch one after another. Here
the pixels of each image are added up first, then the images, all in float32. That is more exact and
takes fewer cycles (LOG.md).

`SynchronizedBatchNorm` computes statistics over the images of all processes. The paper normalizes
on each GPU separately, which stays the default; with few images per process that is a different,
noisier function. torch's own SyncBatchNorm refuses CPU tensors. This version needs two sums over
processes, one forward and one backward, and runs on both.

Both act only on the forward pass of a training step. Networks, checkpoints and evaluation are
unaware of them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reslearn.train.distributed import Processes


def check_values_per_channel(
    model: nn.Module, image_shape: tuple[int, int, int], *, batch_size: int, num_parts: int
) -> None:
    """Check that batch norm sees more than one value per channel in a training step.

    A single image on a map of 1 x 1 has no variance. The network is run once without memory.

    Args:
        image_shape: (C, H, W) of an input.
        batch_size: Images of a step.
        num_parts: Parts of a step that are normalized separately, by processes or accumulation.

    Raises:
        ValueError: If there is one value. The message names train.batch_size.
    """
    if batch_size > num_parts:
        return
    network = copy.deepcopy(model).to("meta").train()
    try:
        network(torch.empty(1, *image_shape, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        setting = f"train.batch_size = {batch_size}"
        if num_parts > 1:
            setting += f" in {num_parts} parts"
        size_px = image_shape[1]
        raise ValueError(
            f"{setting}: batch norm sees one image at a time, and at data.size_px = {size_px} some "
            f"maps have one pixel, so there is no variance: set train.batch_size to "
            f"{2 * num_parts} or more, or a larger data.size_px"
        ) from None


@final
class BatchNormInFloat32(TorchFunctionMode):
    """Compute batch norm over images by `batch_norm` within this context.

    It applies to training on the CPU. All other functions stay unchanged.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.batch_norm and _is_supported(*args, **(kwargs or {})):
            return batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _is_supported(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> bool:
    is_complete = None not in (running_mean, running_var, weight, bias)
    has_variance = x.numel() > x.shape[1]  # a single value per channel has none
    return training and is_complete and x.ndim == 4 and x.device.type == "cpu" and has_variance


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
    """Return (x - mean) / sqrt(var + eps) * weight + bias and update the running statistics.

    It is `torch.nn.functional.batch_norm` in training. `x` may have any precision; all other
    tensors are float32.
    """
    assert training
    normalized, mean, var = _Normalize.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    num = x.numel() // x.shape[1]
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (num / (num - 1)), momentum)
    assert isinstance(normalized, Tensor)
    return normalized


class _Normalize(torch.autograd.Function):
    """Normalize with two numbers per channel in each direction.

    Forward: y = x a + (bias - mean a), where a = weight / sqrt(var + eps).
    Backward: dx = g a + x c + d.
    """

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
        y = wide * _per_image_channel(a) + _per_image_channel(bias - mean * a)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor, _var: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        num = x.numel() // x.shape[1]
        g, wide = grad.float(), x.float()
        grad_bias = _sum(g)
        grad_weight = _sum(g * (wide - _per_image_channel(mean))) * rstd
        a = weight * rstd
        c = -a * rstd * grad_weight / num
        d = -a * grad_bias / num - c * mean
        grad_x = g * _per_image_channel(a) + wide * _per_image_channel(c) + _per_image_channel(d)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def _sum(values: Tensor) -> Tensor:
    """Sum over pixels, then over images: [B, C, H, W] -> [C]."""
    return values.sum((2, 3)).sum(0)


def _per_image_channel(values: Tensor) -> Tensor:
    """Reshape [C] to [1, C, 1, 1]."""
    return values.view(1, -1, 1, 1)


@final
class SynchronizedBatchNorm(TorchFunctionMode):
    """Compute every batch norm that trains over all `processes` within this context."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.batch_norm:
            call = _training_call(*args, **(kwargs or {}))
            if call is not None:
                return _synchronized_batch_norm(self._processes, *call)
        return function(*args, **(kwargs or {}))


_TrainingCall = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float, float]


def _training_call(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _TrainingCall | None:
    """Return the arguments of a batch norm that trains with all of its tensors, else None."""
    if not training or running_mean is None or running_var is None:
        return None
    if weight is None or bias is None:
        return None
    return x, running_mean, running_var, weight, bias, momentum, eps


def _synchronized_batch_norm(
    processes: Processes,
    x: Float[Tensor, "B C *pixels"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    momentum: float,
    eps: float,
) -> Float[Tensor, "B C *pixels"]:
    """Normalize as if the `x` of all processes, which have equal B, were one batch.

    Running statistics are updated alike on all processes.
    """
    apply: Any = _NormalizeSynchronized.apply
    normalized, mean, var = apply(x, weight, bias, eps, processes)
    num = processes.count * x.numel() // x.shape[1]
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (num / max(num - 1, 1))).to(running_var.dtype), momentum)
    assert isinstance(normalized, Tensor)
    return normalized


class _NormalizeSynchronized(torch.autograd.Function):
    """Normalize with the mean and variance over all processes.

    Forward: y = (x - mean) rstd weight + bias.
    Backward: dx = rstd weight (g - mean of g - z mean of g z), where z = (x - mean) rstd.

    The gradients of weight and bias are sums over the images of this process. They are added over
    processes together with all other gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide, axes = _widen(x), _all_but_channels(x)
        share_var, share_mean = torch.var_mean(wide, axes, correction=0)
        # [N, C] each, for N processes.
        means, variances = processes.gather(torch.stack([share_mean, share_var])).unbind(1)
        mean = means.mean(0)
        # Shares are equal, so every process counts alike.
        var = variances.mean(0) + (means - mean).square().mean(0)
        rstd = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.processes = processes
        ctx.mark_non_differentiable(mean, var)
        scale = weight * rstd
        y = wide * _per_channel(scale, x) + _per_channel(bias - mean * scale, x)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor, _var: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        g, axes = _widen(grad), _all_but_channels(x)
        z = (_widen(x) - _per_channel(mean, x)) * _per_channel(rstd, x)
        share = torch.stack([g.sum(axes), (g * z).sum(axes)])
        grad_bias, grad_weight = share
        num = ctx.processes.count * x.numel() // x.shape[1]
        mean_g, mean_gz = ctx.processes.sum(share) / num
        centered = g - _per_channel(mean_g, x) - z * _per_channel(mean_gz, x)
        grad_x = centered * _per_channel(weight * rstd, x)
        grad_weight, grad_bias = grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None


def _widen(x: Tensor) -> Tensor:
    """Convert to float32 unless it is float64: bf16 has too few digits for a variance."""
    return x if x.dtype == torch.float64 else x.float()


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Reshape [C] so that it broadcasts with `x` [B, C, ...]."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
