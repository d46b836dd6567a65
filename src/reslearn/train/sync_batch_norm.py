"""Batch norm over the images of all processes: its statistics are those of the whole batch (or of one of its accumulated parts).

Paper: batch norm on each GPU by itself, which stays the default; with few images a process that is another, noisier function. Torch's own
SyncBatchNorm refuses tensors on a CPU; this is written on two sums over processes, one forward and one backward, and serves both.
It acts on the forward pass of a training step alone, so networks, checkpoints and evaluation know nothing of it.
Shapes: x [B, C, H, W] of this process, all of equal B; mean, variance, weight and bias [C].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reslearn.train.distributed import Processes


@final
class SynchronisedBatchNorm(TorchFunctionMode):
    """Within this context every batch norm that trains is computed over all `processes`; all else is left as it is."""

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
        if function is functional.batch_norm and _trains(*args, **(kwargs or {})):
            return synchronised_batch_norm(*args, **(kwargs or {}), processes=self._processes)
        return function(*args, **(kwargs or {}))


def _trains(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> bool:
    return training and None not in (running_mean, running_var, weight, bias)


def synchronised_batch_norm(
    x: Float[Tensor, "B C *rest"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    processes: Processes,
) -> Float[Tensor, "B C *rest"]:
    """`torch.nn.functional.batch_norm` in training, as if the x of all processes were one batch; running statistics move alike on all."""
    assert training
    normalized, mean, var = _Normalize.apply(x, weight, bias, eps, processes)  # type: ignore[no-untyped-call]
    num = processes.count * x.numel() // x.shape[1]
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (num / max(num - 1, 1))).to(running_var.dtype), momentum)
    assert isinstance(normalized, Tensor)
    return normalized


class _Normalize(torch.autograd.Function):
    """Forward: y = (x - mean) rstd weight + bias. Backward: dx = rstd weight (g - mean of g - z mean of g z), z = (x - mean) rstd.

    The gradients of weight and bias stay sums over this process's images: they are added over processes with all other gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide, over = _wide(x), _all_but_channels(x)
        var_here, mean_here = torch.var_mean(wide, over, correction=0)
        means, vars_ = processes.gather(torch.stack([mean_here, var_here])).unbind(1)  # [N, C] each
        mean = means.mean(0)
        var = vars_.mean(0) + (means - mean).square().mean(
            0
        )  # shares are equal, so no process counts more than another
        rstd = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.processes = processes
        ctx.mark_non_differentiable(mean, var)
        scale = weight * rstd
        return (
            (wide * _by_channel(scale, x) + _by_channel(bias - mean * scale, x)).to(x.dtype),
            mean,
            var,
        )

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor, _var: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        g, over = _wide(grad), _all_but_channels(x)
        z = (_wide(x) - _by_channel(mean, x)) * _by_channel(rstd, x)
        here = torch.stack([g.sum(over), (g * z).sum(over)])
        grad_bias, grad_weight = here
        num = ctx.processes.count * x.numel() // x.shape[1]
        mean_g, mean_gz = ctx.processes.sum(here) / num
        grad_x = (g - _by_channel(mean_g, x) - z * _by_channel(mean_gz, x)) * _by_channel(
            weight * rstd, x
        )
        return (
            grad_x.to(x.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(weight.dtype),
            None,
            None,
        )


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: bf16 has not the digits for a variance."""
    return x if x.dtype == torch.float64 else x.float()


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))
