"""Paths through a residual network: which lengths does the gradient come by (Veit, Wilber, Belongie 2016, Sec. 5)?

After "Residual Networks Behave Like Ensembles of Relatively Shallow Networks" (NIPS 2016). A signal takes, at each of n blocks, the body F
or the shortcut: 2^n paths, whose lengths (in blocks whose F is taken) are binomial with mean n / 2. The forward pass is that of the whole
network; in the backward pass k random blocks hand the gradient through F alone and the others through their shortcut alone. What arrives
at the input of the first block is the gradient by one path of length k; its L2 norm is measured (of the mean loss of the batch, so nats
over units of activation). Number of paths times mean norm, in per cent of the sum over lengths, is called the contribution. Norms do
not add up as gradients do, where these may point apart: the contribution says where gradient can come from, not how it sums.
Shapes: x [B, C, H, W], y [B].
"""

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
    """Paths through `length` bodies: their share of all paths, the norm of a path's gradient over random draws, their contribution."""

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
    """Lengths in blocks. `effective_length` is the mean length weighted by contribution, `mean_length` that of all paths.

    `low` to `high` are the lengths between which 95 % of the contribution lies (2.5 % on either side), `within_pct` the share of all
    paths that are so long; `short_pct` the contribution of paths through fewer than half of the blocks.
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
    """One forward pass of a residual network, kept block by block, and backward passes by chosen branches.

    Training mode: batch norm with the statistics of this batch, as the solver sees it. The network itself is not changed.
    ValueError for a network with a block without shortcut.
    """

    def __init__(self, net: Network, x: Tensor, y: Tensor) -> None:
        missing = [name for name, block in net.blocks() if block.shortcut is None]
        if missing:
            raise ValueError(
                f"{net.name} has no shortcuts: its signal has one path only, through every block"
            )
        twin = deepcopy(net).train().requires_grad_(False)
        self._passed: list[_Passed] = []
        with torch.enable_grad():
            hidden = twin.get_submodule("stem")(x)
            for _, block in twin.blocks():
                self._passed.append(_Passed(block, hidden))
                hidden = self._passed[-1].output.detach()
            end = hidden.requires_grad_()
            (self._at_end,) = torch.autograd.grad(
                functional.cross_entropy(twin.get_submodule("head")(end), y), end
            )

    @property
    def num_blocks(self) -> int:
        """Blocks, each of which is a choice of `gradient`."""
        return len(self._passed)

    def gradient(self, branches: Sequence[Branch]) -> Tensor:
        """The gradient of the mean cross entropy at the input of the first block [B, C, H, W], block i by branches[i]."""
        gradient: Tensor = self._at_end
        for passed, branch in zip(reversed(self._passed), reversed(branches), strict=True):
            gradient = passed.backward(gradient, branch)
        return gradient

    def path(self, through: Sequence[int]) -> Tensor:
        """The gradient by one path: through the bodies of the blocks `through` (numbers from 0), the other blocks' shortcuts."""
        return self.gradient(
            ["body" if index in through else "shortcut" for index in range(self.num_blocks)]
        )


class _Passed:
    """A block's forward pass, cut off from those before and after it."""

    def __init__(self, block: Residual, x: Tensor) -> None:
        assert block.shortcut is not None
        self.entry = x.detach().requires_grad_()
        self.response, self.carried = block.body(self.entry), block.shortcut(self.entry)
        self.output: Tensor = block.activation(self.response + self.carried)

    def backward(self, gradient: Tensor, branch: Branch) -> Tensor:
        # Before the activation both branches have the same gradient: theirs is a sum.
        (gradient,) = torch.autograd.grad(self.output, self.response, gradient, retain_graph=True)
        if branch == "both":
            return self._by(self.response, gradient) + self._by(self.carried, gradient)
        return self._by(self.response if branch == "body" else self.carried, gradient)

    def _by(self, branch: Tensor, gradient: Tensor) -> Tensor:
        return (
            gradient
            if branch is self.entry
            else torch.autograd.grad(branch, self.entry, gradient, retain_graph=True)[0]
        )


def paths(net: Network, x: Tensor, y: Tensor, *, draws: int = 10, seed: int = 0) -> Paths:
    """Contribution by path length for one batch; `draws` random paths of each length (fewer where there are no more).

    ValueError for a plain network, or `draws` below 1.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws}: allowed are 1 and more")
    backward = BlockwiseBackward(net, x, y)
    n = backward.num_blocks
    chosen = [choose(range(n), length, draws=draws, seed=seed) for length in range(n + 1)]
    norms: list[list[float]] = []
    with progress_bar("paths", sum(map(len, chosen)), after_seconds=2.0) as advance:
        for tried in chosen:
            norms.append([])
            for through in tried:
                norms[-1].append(_norm(backward.path(through)))
                advance(1)
    return summarize(norms, gradient_norm=_norm(backward.gradient(["both"] * n)))


def summarize(norms: Sequence[Sequence[float]], *, gradient_norm: float) -> Paths:
    """Paths of 0, 1, ... n blocks from the norms drawn for each length. Shares are NaN where every norm is zero."""
    n = len(norms) - 1
    share = [math.comb(n, length) / 2**n for length in range(n + 1)]
    means = [statistics.fmean(drawn) for drawn in norms]
    products = [part * mean for part, mean in zip(share, means, strict=True)]
    total = math.fsum(products)
    weights = [product / total if total else math.nan for product in products]
    cumulative = np.cumsum(weights)
    low, high = (int(np.searchsorted(cumulative, edge)) if total else 0 for edge in (0.025, 0.975))
    return Paths(
        num_blocks=n,
        lengths=tuple(
            PathLength(
                length=length,
                paths_pct=100 * share[length],
                mean_gradient_norm=means[length],
                sd_gradient_norm=statistics.stdev(norms[length])
                if len(norms[length]) > 1
                else None,
                least_gradient_norm=min(norms[length]),
                greatest_gradient_norm=max(norms[length]),
                num_draws=len(norms[length]),
                contribution_pct=100 * weights[length],
            )
            for length in range(n + 1)
        ),
        mean_length=n / 2,
        effective_length=math.fsum(length * weight for length, weight in enumerate(weights)),
        low=low,
        high=high,
        within_pct=100 * math.fsum(share[low : high + 1]),
        short_pct=100 * math.fsum(weights[length] for length in range(n + 1) if length < n / 2),
        gradient_norm=gradient_norm,
    )


def _norm(gradient: Tensor) -> float:
    """In float64: the gradient by a long path may underflow when squared in float32."""
    return float(gradient.double().norm())
