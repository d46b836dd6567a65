"""Tasks for the small networks: real tables and scans from scikit-learn, and synthetic data.

Each task is a function that returns (inputs, targets). The docstrings give the shape of the inputs.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from sklearn.preprocessing import StandardScaler
from torch import Tensor

Pair = tuple[Tensor, Tensor]
MakeTask = Callable[[], Pair]


def digits() -> Pair:
    """Real scans [1000, 64] of ten digits."""
    x, y = _real("digits")
    return x[:1000] / 4 - 1.2, y[:1000]


def scans() -> Pair:
    """The same scans as images [1000, 1, 8, 8]."""
    x, y = digits()
    return x.view(-1, 1, 8, 8), y


def breast() -> Pair:
    """A real table [569, 30] of two classes, standardized."""
    return _standardized("breast_cancer")


def wine() -> Pair:
    """A real table [178, 13] of three classes, standardized."""
    return _standardized("wine")


def breast_raw() -> Pair:
    """The same table as measured: areas in the thousands next to fractions."""
    return _real("breast_cancer")


def wine_raw() -> Pair:
    """The same table as measured: proline in the thousands next to fractions."""
    return _real("wine")


def moons() -> Pair:
    """Two moons [800, 6] of two classes, mapped into six dimensions."""
    x, y = datasets.make_moons(800, noise=0.1, random_state=0)
    projection = np.random.default_rng(0).normal(size=(2, 6))
    return torch.tensor(x @ projection, dtype=torch.float32), torch.tensor(y)


def sines() -> Pair:
    """A regression [800, 4]: a smooth function of four numbers."""
    x = _generator().normal(size=(800, 4))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * x[:, 3]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def waves() -> Pair:
    """Signals [800, 1, 32] of four wave forms, at any phase, in noise."""
    generator = _generator()
    label = np.arange(800) % 4
    offset = generator.uniform(0, 1, (800, 1))
    frequency = generator.uniform(0.8, 1.2, (800, 1))
    phase = offset + np.linspace(0, 2, 32) * frequency
    turn = phase % 1
    forms = (
        np.sin(2 * math.pi * phase),
        np.sign(turn - 0.5),
        2 * turn - 1,
        1 - 4 * np.abs(turn - 0.5),
    )
    x = np.choose(label[:, None], forms) + 0.3 * generator.normal(size=(800, 32))
    return torch.tensor(x[:, None], dtype=torch.float32), torch.tensor(label)


def tokens() -> Pair:
    """Sequences [800, 8, 6] of four classes: which pattern is at the position with the marker?"""
    generator = _generator()
    label, position = np.arange(800) % 4, generator.integers(0, 8, 800)
    patterns = generator.normal(size=(4, 5))
    values, no_marker = patterns[generator.integers(0, 4, (800, 8))], np.zeros((800, 8, 1))
    x = np.concatenate([values, no_marker], axis=2)
    marked = np.concatenate([patterns[label], np.full((800, 1), 2.0)], axis=1)
    x[np.arange(800), position] = marked
    x = x + 0.1 * generator.normal(size=x.shape)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(label)


def shuffled(make_task: MakeTask) -> Pair:
    """Assign the targets to other inputs."""
    x, y = make_task()
    return x, y[torch.from_numpy(_generator().permutation(len(y)))]


def unscaled(make_task: MakeTask, *, factor: float = 1.0, offset: float = 0.0) -> Pair:
    """Move the inputs far from mean 0 and standard deviation 1."""
    x, y = make_task()
    return x * factor + offset, y


def noise(make_task: MakeTask) -> Pair:
    """Replace the inputs by noise."""
    x, y = make_task()
    return torch.from_numpy(_generator().normal(size=x.shape)).float(), y


def constant(make_task: MakeTask) -> Pair:
    """Replace the inputs by ones."""
    x, y = make_task()
    return torch.ones_like(x), y


def mislabeled(make_task: MakeTask, *, share: float, num_examples: int | None = None) -> Pair:
    """Draw a share of the labels at random; keep only the first `num_examples`."""
    x, y = make_task()
    generator = _generator()
    is_drawn = torch.from_numpy(generator.random(len(y)) < share)
    drawn = torch.from_numpy(generator.integers(0, int(y.max()) + 1, len(y)))
    return x[:num_examples], torch.where(is_drawn, drawn, y)[:num_examples]


def _generator() -> np.random.Generator:
    return np.random.default_rng(1)


@cache
def _real(name: str) -> Pair:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))  # some tables are sorted by class
    return torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order])


def _standardized(name: str) -> Pair:
    x, y = _real(name)
    return torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32), y
