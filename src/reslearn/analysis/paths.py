"""Paths through a residual network: which path lengths does the gradient come from?

After Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", Sec. 5. At each of n blocks, a signal takes the body F or the shortcut. There are 2^n
paths. The length of a path is the number of blocks whose F it takes, and is binomial with mean
n / 2.

The forward pass is the one of the whole network. In the backward pass, k random blocks pass the
gradient through F alone, and the others through their shortcut alone. The gradient at the input of
the first block is then the gradient of one path of length k. Its L2 norm is measured, for the mean
loss of the batch: nats per unit of activation. The contribution of a length is the number of paths
times their mean norm, in percent of the sum over all lengths. Gradients of several paths can
cancel, but norms cannot. The contribution therefore says where gradient can come from, not how it
adds up.

Shapes: x [B, C, H, W], y [B].
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reslearn.analysis.lesions import choose
from reslearn.models import Network, Residual
from reslearn.progress import progress_bar

Branch = Literal["body", "shortcut", "both"]


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """Paths of one length.

    Attributes:
        length: Number of bodies on the path.
        paths_pct: Share of all paths, in percent.
        mean_gradient_norm: Mean norm of the gradient over random paths.
        sd_gradient_norm: Standard deviation of the norm. None for a single path.
        least_gradient_norm: Smallest norm.
        greatest_gradient_norm: Greatest norm.
        num_draws: Number of random paths.
        contribution_pct: Contribution to the gradient, in percent.
    """

    length: int
    paths_pct: float
    mean_gradient_norm: float
    sd_gradient_norm: float | None
    least_gradient_norm: float
    greatest_gradient_norm: float
    num_draws: int
    contribution_pct: float


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Paths of a network by length. Lengths are in blocks.

    Attributes:
        num_blocks: Number of blocks.
        lengths: Paths of length 0, 1, ... `num_blocks`.
        mean_length: Mean length of all paths.
        effective_length: Mean length, weighted by contribution.
        low: Below this length lies 2.5 % of the contribution.
        high: Above this length lies 2.5 % of the contribution.
        within_pct: Share of all paths with a length from `low` to `high`, in percent.
        short_pct: Contribution of paths through fewer than half of the blocks, in percent.
        gradient_norm: Norm of the whole gradient.
    """

    num_blocks: int
    lengths: tuple[PathLength, ...]
    mean_length: float
    effective_length: float
    low: int
    high: int
    within_pct: float
    short_pct: float
    gradient_norm: float


class BlockwiseBackward:
    """One forward pass of a residual network, with backward passes through selected branches.

    A copy of the network runs in training mode. It uses the batch-norm statistics of this batch, as
    the optimizer sees it.

    Raises:
        ValueError: If a block has no shortcut.
    """

    def __init__(self, net: Network, x: Tensor, y: Tensor) -> None:
        missing = [name for name, block in net.blocks() if block.shortcut is None]
        if missing:
            raise ValueError(
                f"{net.name} has no shortcuts: there is only one path, through every block; "
                "use a residual network"
            )
        twin = deepcopy(net).train().requires_grad_(False)
        self._passes: list[_BlockPass] = []
        with torch.enable_grad():
            hidden = twin.get_submodule("stem")(x)
            for _, block in twin.blocks():
                self._passes.append(_BlockPass(block, hidden))
                hidden = self._passes[-1].output.detach()
            end = hidden.requires_grad_()
            (self._at_end,) = torch.autograd.grad(
                functional.cross_entropy(twin.get_submodule("head")(end), y), end
            )

    @property
    def num_blocks(self) -> int:
        """Number of blocks, which is the number of branches that `gradient` takes."""
        return len(self._passes)

    def gradient(self, branches: Sequence[Branch]) -> Tensor:
        """Return the gradient of the mean cross entropy at the input of the first block.

        Args:
            branches: The branch that passes the gradient in each block.

        Returns:
            Gradient [B, C, H, W].
        """
        gradient: Tensor = self._at_end
        for block_pass, branch in zip(reversed(self._passes), reversed(branches), strict=True):
            gradient = block_pass.backward(gradient, branch)
        return gradient

    def path(self, through: Sequence[int]) -> Tensor:
        """Return the gradient of one path: through the bodies of some blocks, else shortcuts.

        Args:
            through: Indices of the blocks whose body is taken.
        """
        return self.gradient(
            ["body" if index in through else "shortcut" for index in range(self.num_blocks)]
        )


class _BlockPass:
    """The forward pass of a block, detached from the blocks before and after it."""

    def __init__(self, block: Residual, x: Tensor) -> None:
        assert block.shortcut is not None
        self.entry = x.detach().requires_grad_()
        self.response, self.carried = block.body(self.entry), block.shortcut(self.entry)
        self.output: Tensor = block.activation(self.response + self.carried)

    def backward(self, gradient: Tensor, branch: Branch) -> Tensor:
        # The input of the activation is a sum, so both branches have the same gradient there.
        (gradient,) = torch.autograd.grad(self.output, self.response, gradient, retain_graph=True)
        if branch == "both":
            return self._by(self.response, gradient) + self._by(self.carried, gradient)
        return self._by(self.response if branch == "body" else self.carried, gradient)

    def _by(self, branch: Tensor, gradient: Tensor) -> Tensor:
        if branch is self.entry:  # an identity shortcut
            return gradient
        return torch.autograd.grad(branch, self.entry, gradient, retain_graph=True)[0]


def paths(net: Network, x: Tensor, y: Tensor, *, draws: int = 10, seed: int = 0) -> Paths:
    """Measure the contribution of each path length for one batch.

    Args:
        net: A residual network. It is not changed.
        x: Images.
        y: Labels.
        draws: Random paths of each length, fewer if there are no more.
        seed: Seed of the paths.

    Raises:
        ValueError: If the network is plain, or `draws` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws}: it must be at least 1")
    backward = BlockwiseBackward(net, x, y)
    n = backward.num_blocks
    paths_by_length = [choose(range(n), length, draws=draws, seed=seed) for length in range(n + 1)]
    norms: list[list[float]] = []
    with progress_bar("paths", sum(map(len, paths_by_length)), after_seconds=2.0) as advance:
        for selections in paths_by_length:
            length_norms: list[float] = []
            for through in selections:
                length_norms.append(_norm(backward.path(through)))
                advance(1)
            norms.append(length_norms)
    return summarize(norms, gradient_norm=_norm(backward.gradient(["both"] * n)))


def summarize(norms: Sequence[Sequence[float]], *, gradient_norm: float) -> Paths:
    """Summarize the norms of random paths.

    Args:
        norms: Norms for each length 0, 1, ... n. Contributions are nan if every norm is zero.
        gradient_norm: Norm of the whole gradient.
    """
    n = len(norms) - 1
    share = [math.comb(n, length) / 2**n for length in range(n + 1)]
    means = [statistics.fmean(length_norms) for length_norms in norms]
    products = [part * mean for part, mean in zip(share, means, strict=True)]
    total = math.fsum(products)
    weights = [product / total if total else math.nan for product in products]
    cumulative = np.cumsum(weights)
    low, high = (int(np.searchsorted(cumulative, edge)) if total else 0 for edge in (0.025, 0.975))
    lengths: list[PathLength] = []
    for length, length_norms in enumerate(norms):
        deviation = statistics.stdev(length_norms) if len(length_norms) > 1 else None
        lengths.append(
            PathLength(
                length=length,
                paths_pct=100 * share[length],
                mean_gradient_norm=means[length],
                sd_gradient_norm=deviation,
                least_gradient_norm=min(length_norms),
                greatest_gradient_norm=max(length_norms),
                num_draws=len(length_norms),
                contribution_pct=100 * weights[length],
            )
        )
    return Paths(
        num_blocks=n,
        lengths=tuple(lengths),
        mean_length=n / 2,
        effective_length=math.fsum(length * weight for length, weight in enumerate(weights)),
        low=low,
        high=high,
        within_pct=100 * math.fsum(share[low : high + 1]),
        short_pct=100 * math.fsum(weights[length] for length in range(n + 1) if length < n / 2),
        gradient_norm=gradient_norm,
    )


def _norm(gradient: Tensor) -> float:
    """Return the L2 norm in float64: the square of a small gradient underflows in float32."""
    return float(gradient.double().norm())
