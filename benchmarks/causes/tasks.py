"""Tasks of the second generation: shapes, tables, signals, tokens, graphs and changed digits.

Each task is a function that returns (inputs, targets). Most have no noise, so a network that fits
them reaches a loss near 0. The docstrings give the shape of the inputs.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional

Pair = tuple[Tensor, Tensor]
MakeTask = Callable[[], Pair]
NUM_EXAMPLES = 2000


def _pair(x: object, y: object) -> Pair:
    inputs, targets = torch.as_tensor(np.asarray(x)), torch.as_tensor(np.asarray(y))
    if inputs.is_floating_point():
        inputs = inputs.float()
    return inputs, targets.float() if targets.is_floating_point() else targets.long()


# Points in the plane and tables.


def spirals() -> Pair:
    """Points [2000, 2] on three spirals."""
    draw = np.random.default_rng(11)
    label = np.arange(NUM_EXAMPLES) % 3
    radius = draw.uniform(0.1, 1, NUM_EXAMPLES)
    angle = 4 * radius + 2 * math.pi * label / 3
    return _pair(2 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), label)


def checkerboard() -> Pair:
    """Points [2000, 2] on a board of three by three fields, none near a line."""
    draw = np.random.default_rng(12)
    field = draw.integers(0, 3, (NUM_EXAMPLES, 2))
    points = field + draw.uniform(0.08, 0.92, (NUM_EXAMPLES, 2))
    return _pair(points - 1.5, field.sum(1) % 2)


def rings() -> Pair:
    """Points [2000, 5] in four shells around the origin, with gaps between the shells."""
    draw = np.random.default_rng(13)
    label = np.arange(NUM_EXAMPLES) % 4
    direction = draw.normal(size=(NUM_EXAMPLES, 5))
    radius = 0.4 + 0.7 * label + draw.uniform(0, 0.35, NUM_EXAMPLES)
    x = direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius[:, None]
    return _pair(x, label)


def clusters() -> Pair:
    """A table [2000, 12] of five classes in two clusters each."""
    x, y = datasets.make_classification(
        NUM_EXAMPLES,
        n_features=12,
        n_informative=8,
        n_classes=5,
        n_clusters_per_class=2,
        class_sep=3.0,
        flip_y=0,
        random_state=14,
    )
    return _pair(x / x.std(0), y)


def yields() -> Pair:
    """A regression [2000, 10]: Friedman's first function, targets standardized."""
    x, y = datasets.make_friedman1(NUM_EXAMPLES, n_features=10, noise=0.0, random_state=15)
    return _pair(4 * x - 2, (y - y.mean()) / y.std())


def impedance_raw() -> Pair:
    """A regression [2000, 4]: Friedman's second function; columns from 1 up to 1,700."""
    x, y = datasets.make_friedman2(NUM_EXAMPLES, noise=0.0, random_state=16)
    return _pair(x, (y - y.mean()) / y.std())


def impedance() -> Pair:
    """The same table, standardized."""
    x, y = impedance_raw()
    return (x - x.mean(0)) / x.std(0), y


def prices() -> Pair:
    """A regression [2000, 6] with targets from 20 to 80, as prices."""
    x = np.random.default_rng(17).normal(size=(NUM_EXAMPLES, 6))
    y = 50 + 8 * np.tanh(x[:, 0]) + 6 * x[:, 1] * (x[:, 2] > 0) - 5 * np.abs(x[:, 3])
    return _pair(x, np.clip(y, 20, 80))


def returns() -> Pair:
    """The same table with standardized targets of both signs."""
    x, y = prices()
    return x, (y - y.mean()) / y.std()


def chances() -> Pair:
    """A table [2000, 6] with a target of 0.0 or 1.0 per row [2000, 1], for a binary loss."""
    x, y = returns()
    return x, (y > 0).float()[:, None]


def ledger() -> Pair:
    """A table [2000, 8] of three classes; amounts up to 100,000 stand beside shares.

    No row is near the limits between the classes.
    """
    draw = np.random.default_rng(18)
    x = draw.normal(size=(2 * NUM_EXAMPLES, 8))
    signal = x[:, 0] + x[:, 1] * x[:, 2] - np.abs(x[:, 3])
    limits = np.quantile(signal, [1 / 3, 2 / 3])
    is_clear = np.abs(signal[:, None] - limits).min(1) > 0.2
    x, label = x[is_clear][:NUM_EXAMPLES], np.digitize(signal, limits)[is_clear][:NUM_EXAMPLES]
    scale = np.array([1e4, 1.0, 0.01, 1.0, 3e4, 1.0, 500.0, 1.0])
    return _pair(x * scale + 2 * scale, label)


def ledger_scaled() -> Pair:
    """The same table, standardized."""
    x, y = ledger()
    return (x - x.mean(0)) / x.std(0), y


# Signals.


def chirps() -> Pair:
    """Signals [2000, 1, 48] whose pitch rises, falls or stays."""
    draw = np.random.default_rng(21)
    label = np.arange(NUM_EXAMPLES) % 3
    time = np.linspace(0, 1, 48)
    start = draw.uniform(3, 5, (NUM_EXAMPLES, 1))
    slope = 3 * (label - 1)[:, None]
    phase = start * time + slope * time**2 / 2 + draw.uniform(0, 1, (NUM_EXAMPLES, 1))
    noise = 0.1 * draw.normal(size=phase.shape)
    return _pair((np.sin(2 * math.pi * phase) + noise)[:, None], label)


def bumps() -> Pair:
    """Signals [2000, 2, 32]: in which order do bumps of two widths occur in two channels?"""
    draw = np.random.default_rng(22)
    label = np.arange(NUM_EXAMPLES) % 4
    time, x = np.arange(32), 0.1 * draw.normal(size=(NUM_EXAMPLES, 2, 32))
    for i, kind in enumerate(label):
        early, late = draw.integers(4, 14), draw.integers(18, 28)
        first, second = (early, late) if kind % 2 else (late, early)
        x[i, 0] += np.exp(-(((time - first) / 2.0) ** 2))
        x[i, kind // 2] += np.exp(-(((time - second) / 4.0) ** 2))
    return _pair(2 * x, label)


def forecast() -> Pair:
    """Windows [2000, 24, 1] of a mixture of two sines; the target is the next value."""
    draw = np.random.default_rng(23)
    time = np.arange(25)
    phase = draw.uniform(0, 2 * math.pi, (2, NUM_EXAMPLES, 1))
    series = np.sin(0.5 * time + phase[0]) + 0.5 * np.sin(1.3 * time + phase[1])
    return _pair(series[:, :24, None], series[:, 24])


def running_sum() -> Pair:
    """Steps [2000, 12, 1]; the target [2000, 12] is their sum up to each position, scaled."""
    x = np.random.default_rng(24).normal(size=(NUM_EXAMPLES, 12))
    return _pair(x[:, :, None], np.cumsum(x, 1) / 2)


def marked_sum() -> Pair:
    """The adding problem [2000, 10, 2]: the sum of the two values whose marker is 1."""
    draw = np.random.default_rng(25)
    x = np.zeros((NUM_EXAMPLES, 10, 2))
    x[:, :, 0] = draw.uniform(-1, 1, (NUM_EXAMPLES, 10))
    for row in x:
        row[draw.choice(10, 2, replace=False), 1] = 1
    return _pair(x, (x[:, :, 0] * x[:, :, 1]).sum(1))


# Tokens, int64.


def lookup() -> Pair:
    """Tokens [2000, 8]: the first one is a position, and the class is the token there."""
    draw = np.random.default_rng(31)
    x = draw.integers(0, 7, (NUM_EXAMPLES, 8))
    return _pair(x, x[np.arange(NUM_EXAMPLES), 1 + x[:, 0]])


def parity() -> Pair:
    """Bits [2000, 6] between four tokens of noise; the class is the parity of the first four."""
    draw = np.random.default_rng(32)
    bits = draw.integers(0, 2, (NUM_EXAMPLES, 4))
    filler = draw.integers(2, 6, (NUM_EXAMPLES, 4))
    return _pair(np.concatenate([bits, filler], 1), bits.sum(1) % 2)


@cache
def brackets() -> Pair:
    """Brackets [2000, 12] of two tokens: are they balanced?"""
    draw = np.random.default_rng(33)
    rows: list[np.ndarray] = []
    labels: list[int] = []
    while len(rows) < NUM_EXAMPLES:
        row = draw.integers(0, 2, 12)
        height = np.cumsum(1 - 2 * row)
        is_balanced = int(height.min() >= 0 and height[-1] == 0)
        if is_balanced == len(rows) % 2:
            rows.append(row)
            labels.append(is_balanced)
    return _pair(np.stack(rows), labels)


def largest() -> Pair:
    """Tokens [2000, 6] of ten kinds; the class is the largest one."""
    x = np.random.default_rng(34).integers(0, 10, (NUM_EXAMPLES, 6))
    label = np.arange(NUM_EXAMPLES) % 9 + 1
    x = np.minimum(x, label[:, None])
    x[np.arange(NUM_EXAMPLES), np.random.default_rng(35).integers(0, 6, NUM_EXAMPLES)] = label
    return _pair(x, label - 1)


# Graphs of eight nodes: the adjacency matrix beside three features per node.


def _graphs() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(41)
    upper = np.triu(draw.random((NUM_EXAMPLES, 8, 8)) < 0.22, 1)
    return (upper | upper.transpose(0, 2, 1)).astype(float), draw.normal(size=(NUM_EXAMPLES, 8, 3))


def neighbors() -> Pair:
    """Graphs [2000, 8, 11]; the target [2000, 8] is a function of the neighbors of each node."""
    adjacency, features = _graphs()
    sums = adjacency @ features[:, :, :1]
    target = np.tanh(sums[:, :, 0]) + 0.5 * features[:, :, 1]
    return _pair(np.concatenate([adjacency, features], 2), target)


def crowded() -> Pair:
    """The same graphs [2000, 8, 11]; the class is the number of edges, in three bins."""
    adjacency, features = _graphs()
    edges = adjacency.sum((1, 2)) / 2
    label = np.digitize(edges, [5.5, 7.5])
    return _pair(np.concatenate([adjacency, features], 2), label)


# Digits, changed.


@cache
def _scans() -> Pair:
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(51).permutation(len(y))
    return _pair((x[order] / 8 - 1).reshape(-1, 1, 8, 8), y[order])


def shifted() -> Pair:
    """Scans [1797, 1, 12, 12]: digits at a random place of a larger picture."""
    x, y = _scans()
    draw = np.random.default_rng(52)
    canvas = torch.full((len(x), 1, 12, 12), -1.0)
    for i, (top, left) in enumerate(draw.integers(0, 5, (len(x), 2))):
        canvas[i, :, top : top + 8, left : left + 8] = x[i]
    return canvas, y


def turned() -> Pair:
    """Scans [1080, 1, 8, 8] of the digits 2 to 7; the class is the turn by quarters."""
    x, y = _scans()
    is_used = (y >= 2) & (y <= 7)
    x, turn = x[is_used], torch.arange(int(is_used.sum())) % 4
    pictures = [torch.rot90(image, int(k), (1, 2)) for image, k in zip(x, turn, strict=True)]
    return torch.stack(pictures), turn


def compared() -> Pair:
    """Two scans [3594, 2, 8, 8]: is the first digit smaller than five, and the second?"""
    x, y = _scans()
    draw = np.random.default_rng(53)
    inputs, labels = [], []
    for _ in range(2):
        order = torch.from_numpy(draw.permutation(len(x)))
        inputs.append(torch.cat([x, x[order]], 1))
        labels.append(2 * (y < 5).long() + (y[order] < 5).long())
    return torch.cat(inputs), torch.cat(labels)


def inverted() -> Pair:
    """Scans [1797, 1, 8, 8], half of them white on black; the class is the digit."""
    x, y = _scans()
    sign = torch.from_numpy(np.random.default_rng(54).choice([-1.0, 1.0], len(x))).float()
    return x * sign.view(-1, 1, 1, 1), y


def edges() -> Pair:
    """Scans [1797, 1, 8, 8]; the target is the strength of their edges."""
    x, _ = _scans()
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).view(1, 1, 3, 3) / 4
    across = functional.conv2d(x, kernel, padding=1)
    down = functional.conv2d(x, kernel.transpose(2, 3), padding=1)
    return x, (across.square() + down.square()).sqrt()


def blurred() -> Pair:
    """Blurred scans [1797, 1, 8, 8]; the target is the sharp scan."""
    x, _ = _scans()
    kernel = torch.tensor([0.15, 0.7, 0.15])
    return functional.conv2d(x, (kernel[:, None] * kernel).view(1, 1, 3, 3), padding=1), x


def pixels() -> Pair:
    """Scans [1797, 64] as a table."""
    x, y = _scans()
    return x.flatten(1), y


# Faults of data.


def scaled(make_task: MakeTask, *, factor: float = 1.0, offset: float = 0.0) -> Pair:
    """Move the inputs far from mean 0 and standard deviation 1."""
    x, y = make_task()
    return x * factor + offset, y


def magnified(make_task: MakeTask, *, factor: float) -> Pair:
    """Multiply the targets of a regression."""
    x, y = make_task()
    return x, y * factor


def shuffled(make_task: MakeTask) -> Pair:
    """Assign the targets to other inputs."""
    x, y = make_task()
    return x, y[torch.from_numpy(np.random.default_rng(61).permutation(len(y)))]


def reversed_rows(make_task: MakeTask) -> Pair:
    """Sort the inputs by size and forget the targets, as a careless join of two tables does."""
    x, y = make_task()
    return x[x.flatten(1).float().sum(1).argsort()], y


def with_gaps(make_task: MakeTask) -> Pair:
    """Leave some values of the first feature out, as NaN."""
    x, y = make_task()
    x = x.clone()
    x.flatten(1)[::37, 0] = float("nan")
    return x, y


def erased(make_task: MakeTask) -> Pair:
    """Replace the inputs by their mean, as a broken reader does."""
    x, y = make_task()
    return x.mean(0, keepdim=True).expand_as(x).clone(), y
