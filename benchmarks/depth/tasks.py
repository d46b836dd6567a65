"""What the small networks learn: real tables and scans that come with scikit-learn, and made ones. Each gives (inputs, targets)."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from sklearn.preprocessing import StandardScaler
from torch import Tensor

Pair = tuple[Tensor, Tensor]
Make = Callable[[], Pair]


def digits() -> Pair:
    """[1000, 64], ten classes, real."""
    x, y = _real("digits")
    return x[:1000] / 4 - 1.2, y[:1000]


def scans() -> Pair:
    """The same as images [1000, 1, 8, 8]."""
    x, y = digits()
    return x.view(-1, 1, 8, 8), y


def breast() -> Pair:
    """[569, 30], two classes, real, standardized."""
    return _standardized("breast_cancer")


def wine() -> Pair:
    """[178, 13], three classes, real, standardized."""
    return _standardized("wine")


def breast_raw() -> Pair:
    """As they were measured: areas in the thousands beside fractions."""
    return _real("breast_cancer")


def wine_raw() -> Pair:
    """As they were measured: proline in the thousands beside fractions."""
    return _real("wine")


def moons() -> Pair:
    """[800, 6], two classes: two moons turned into six dimensions."""
    x, y = datasets.make_moons(800, noise=0.1, random_state=0)
    turn = np.random.default_rng(0).normal(size=(2, 6))
    return torch.tensor(x @ turn, dtype=torch.float32), torch.tensor(y)


def sines() -> Pair:
    """[800, 4], a number: a smooth function of four."""
    x = _generator().normal(size=(800, 4))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * x[:, 3]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def waves() -> Pair:
    """[800, 1, 32], four classes of wave form, at any phase, in noise."""
    generator = _generator()
    label = np.arange(800) % 4
    phase = generator.uniform(0, 1, (800, 1)) + np.linspace(0, 2, 32) * generator.uniform(
        0.8, 1.2, (800, 1)
    )
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
    """[800, 8, 6], four classes: which of four patterns lies at the place that a marker points out."""
    generator = _generator()
    label, place = np.arange(800) % 4, generator.integers(0, 8, 800)
    patterns = generator.normal(size=(4, 5))
    x = np.concatenate(
        [patterns[generator.integers(0, 4, (800, 8))], np.zeros((800, 8, 1))], axis=2
    )
    x[np.arange(800), place] = np.concatenate([patterns[label], np.full((800, 1), 2.0)], axis=1)
    return torch.tensor(
        x + 0.1 * generator.normal(size=x.shape), dtype=torch.float32
    ), torch.tensor(label)


def shuffled(make: Make) -> Pair:
    """Targets that belong to other inputs."""
    x, y = make()
    return x, y[torch.from_numpy(_generator().permutation(len(y)))]


def unscaled(make: Make, *, factor: float = 1.0, offset: float = 0.0) -> Pair:
    """Inputs far from mean 0 and deviation 1."""
    x, y = make()
    return x * factor + offset, y


def noise(make: Make) -> Pair:
    """Inputs that say nothing of the targets."""
    x, y = make()
    return torch.from_numpy(_generator().normal(size=x.shape)).float(), y


def constant(make: Make) -> Pair:
    """Inputs that are all the same."""
    x, y = make()
    return torch.ones_like(x), y


def mislabelled(make: Make, *, share: float, number: int | None = None) -> Pair:
    """A share of the labels drawn anew, of all examples or of the first so many."""
    x, y = make()
    generator = _generator()
    hit = torch.from_numpy(generator.random(len(y)) < share)
    drawn = torch.from_numpy(generator.integers(0, int(y.max()) + 1, len(y)))
    return x[:number], torch.where(hit, drawn, y)[:number]


def _generator() -> np.random.Generator:
    return np.random.default_rng(1)


@cache
def _real(name: str) -> Pair:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))  # some come sorted by class
    return torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order])


def _standardized(name: str) -> Pair:
    x, y = _real(name)
    return torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32), y
