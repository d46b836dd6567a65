"""The networks of the benchmark, healthy and ill, and how the truth of each is known.

Where something is plainly wrong by construction (labels shuffled, a learning rate two hundred times that of a sibling) the truth is written
here. All others are measured: ten times the steps of a short trial (a verdict on depth or a rate comes from trials of four times), several
learning rates, five seeds, against a shallower network that its own builder makes (truth.py). The members of each kind are dealt to two
halves by a hash of their names: rules may be tuned on one, and are scored on the other. Held out is the member, not its data or its family:
siblings lie in both halves.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from benchmarks.depth import nets, tasks
from benchmarks.depth.tasks import Pair
from torch import nn

from reslearn.diagnose import Problem, make_problem
from reslearn.diagnose.verdict import Name

HALVES = ("tuning", "held-out")
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Member:
    """`truths`: the verdicts that are right, by construction; empty: measured, with `shallow`, of about a third of the depth, and
    `shallowest`, where that is something else."""

    name: str
    kind: str  # members of one kind are dealt to both halves
    half: str
    build: Callable[[], nn.Module]
    data: Callable[[], Pair]
    lr: float
    optimizer: str = "sgd"
    shallow: Callable[[], nn.Module] | None = None
    shallowest: Callable[[], nn.Module] | None = None
    truths: tuple[Name, ...] = ()

    def problem(self, build: Callable[[], nn.Module] | None = None) -> Problem:
        """As `reslearn diagnose` takes it; with `build`, of another network on the same data."""
        return make_problem(
            build or self.build,
            self.data(),
            name=self.name,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=BATCH_SIZE,
        )


@cache
def members() -> tuple[Member, ...]:
    """All of them, healthy or not known first."""
    specified = [*_measured(), *_constructed()]
    of_kind: dict[str, list[str]] = {}
    for one in specified:
        of_kind.setdefault(one["kind"], []).append(one["name"])
    first = {name for names in of_kind.values() for name in sorted(names, key=_shuffle)[::2]}
    return tuple(Member(**one, half=HALVES[one["name"] not in first]) for one in specified)


def _shuffle(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# Inputs, outputs and a learning rate at which a network of two layers trains well.
_TABLES: dict[str, tuple[Callable[[], Pair], int, int, float]] = {
    "digits": (tasks.digits, 64, 10, 0.02),
    "breast": (tasks.breast, 30, 2, 0.02),
    "wine": (tasks.wine, 13, 3, 0.02),
    "moons": (tasks.moons, 6, 2, 0.02),
    "sines": (tasks.sines, 4, 1, 0.01),
}
_CONVOLUTIONAL: dict[str, tuple[Callable[..., nn.Module], Callable[[], Pair], int]] = {
    "conv2d": (nets.conv2d, tasks.scans, 10),
    "conv1d": (nets.conv1d, tasks.waves, 4),
}


def _measured() -> Iterator[dict[str, Any]]:
    for task, (data, inputs, outputs, lr) in _TABLES.items():
        mlp = partial(nets.mlp, inputs, outputs)
        for norm, width in ((False, 16), (True, 16), (False, 32)):
            for depth in (3, 6, 12, 24):
                name = (
                    f"mlp{depth}-{task}" + ("-bn" if norm else "") + ("-wide" if width > 16 else "")
                )
                yield _against_shallow(
                    name, "mlp", partial(mlp, norm=norm, width=width), depth, data, lr
                )
        for depth in (32, 48):  # enough that depth does hurt
            yield _against_shallow(f"mlp{depth}-{task}", "mlp, deep", mlp, depth, data, lr)
        yield _against_shallow(
            f"mlp48-{task}-bn", "mlp, deep", partial(mlp, norm=True), 48, data, lr
        )
        for depth in (7, 13, 25):
            build = partial(mlp, norm=True, shortcuts=True)
            yield _against_shallow(
                f"mlp{depth}-{task}-shortcuts", "mlp, shortcuts", build, depth, data, lr
            )
    for activation in ("tanh", "gelu", "sigmoid"):
        for task, depth in (("digits", 6), ("moons", 6), ("breast", 16), ("sines", 16)):
            data, inputs, outputs, lr = _TABLES[task]
            build = partial(nets.mlp, inputs, outputs, activation=activation)
            yield _against_shallow(
                f"mlp{depth}-{task}-{activation}", "mlp, other activations", build, depth, data, lr
            )
    for family, (net, data, outputs) in _CONVOLUTIONAL.items():
        for norm in (False, True):
            for depth in (3, 6, 12, 20):
                name = f"{family}-{depth}" + ("-bn" if norm else "")
                yield _against_shallow(
                    name, family, partial(net, outputs, norm=norm), depth, data, 0.05
                )
        for depth in (7, 13, 21):
            build = partial(net, outputs, norm=True, shortcuts=True)
            yield _against_shallow(
                f"{family}-{depth}-shortcuts", f"{family}, shortcuts", build, depth, data, 0.05
            )
    for shortcuts in (True, False):
        for depth in (2, 3, 6, 9):
            name = f"transformer{depth}" + ("" if shortcuts else "-no-shortcuts")
            build = partial(_transformer, shortcuts=shortcuts)
            yield _against_shallow(
                name, "transformer", build, depth, tasks.tokens, 3e-3, optimizer="adam"
            )


def _against_shallow(
    name: str,
    kind: str,
    build: Callable[..., nn.Module],
    depth: int,
    data: Callable[[], Pair],
    lr: float,
    *,
    optimizer: str = "sgd",
) -> dict[str, Any]:
    fewer = max(1, round(depth / 3))
    if "shortcuts" in kind:
        fewer += 1 - fewer % 2  # a first layer and whole blocks
    return {
        "name": name,
        "kind": kind,
        "build": partial(build, depth=depth),
        "shallow": partial(build, depth=fewer),
        "shallowest": partial(build, depth=1) if fewer > 2 else None,
        "data": data,
        "lr": lr,
        "optimizer": optimizer,
    }


def _transformer(*, depth: int, shortcuts: bool = True) -> nn.Module:
    return nets.Transformer(6, 4, 8, depth, shortcuts=shortcuts)


def _mlp(task: str, depth: int = 4, **options: Any) -> Callable[[], nn.Module]:
    _, inputs, outputs, _ = _TABLES[task]
    return partial(nets.mlp, inputs, outputs, depth, **options)


def _constructed() -> Iterator[dict[str, Any]]:
    """Each on a network of which a sibling is healthy."""
    yield from _rates()
    yield from _starts()
    yield from _data()
    yield from _sizes()


def _rates() -> Iterator[dict[str, Any]]:
    """Two hundred times too low, or so high that nothing is learned."""
    usual: list[tuple[str, Callable[[], nn.Module], Callable[[], Pair], float, str]] = [
        *(
            (f"mlp-{task}", _mlp(task), _TABLES[task][0], _TABLES[task][3], "sgd")
            for task in ("digits", "breast", "moons", "sines")
        ),
        (
            "conv2d",
            partial(nets.conv2d, 10, 7, norm=True, shortcuts=True),
            tasks.scans,
            0.05,
            "sgd",
        ),
        ("conv1d", partial(nets.conv1d, 4, 7, norm=True, shortcuts=True), tasks.waves, 0.05, "sgd"),
        ("transformer", partial(_transformer, depth=2), tasks.tokens, 3e-3, "adam"),
    ]
    for name, build, data, lr, optimizer in usual:
        for word, factor in (("low", 1 / 200), ("high", 200)):
            yield {
                "name": f"{name}-lr-too-{word}",
                "kind": f"learning rate too {word}",
                "build": build,
                "data": data,
                "lr": lr * factor,
                "optimizer": optimizer,
                "truths": ("bad learning rate",),
            }


def _starts() -> Iterator[dict[str, Any]]:
    """Biases that shut most units, and weights that shrink or blow up the signal from layer to layer."""
    for task in ("digits", "breast", "moons", "wine"):
        data, _, _, lr = _TABLES[task]
        common = {"data": data, "lr": lr}
        yield {
            **common,
            "name": f"mlp-{task}-dead",
            "kind": "dead",
            "build": _mlp(task, bias=-4.0),
            "truths": ("dead units",),
        }
        for word, gain in (("vanishing", 0.1), ("exploding", 8.0)):
            yield {
                **common,
                "name": f"mlp-{task}-{word}",
                "kind": word,
                "build": _mlp(task, 8, gain=gain),
                "truths": ("vanishing or exploding signal",),
            }
    for family, (net, data, outputs) in _CONVOLUTIONAL.items():
        common = {"data": data, "lr": 0.05}
        yield {
            **common,
            "name": f"{family}-dead",
            "kind": "dead",
            "build": partial(net, outputs, 4, bias=-4.0),
            "truths": ("dead units",),
        }
        for word, gain in (("vanishing", 0.1), ("exploding", 8.0)):
            yield {
                **common,
                "name": f"{family}-{word}",
                "kind": word,
                "build": partial(net, outputs, 8, gain=gain),
                "truths": ("vanishing or exploding signal",),
            }


def _data() -> Iterator[dict[str, Any]]:
    def on(
        name: str,
        build: Callable[[], nn.Module],
        lr: float,
        kind: str,
        data: Callable[[], Pair],
        optimizer: str = "sgd",
    ) -> dict[str, Any]:
        return {
            "name": f"{name}-{kind}",
            "kind": kind,
            "build": build,
            "data": data,
            "lr": lr,
            "optimizer": optimizer,
            "truths": ("data fault",),
        }

    for task in ("digits", "breast", "moons", "sines"):
        pair, _, _, lr = _TABLES[task]
        yield on(f"mlp-{task}", _mlp(task), lr, "shuffled", partial(tasks.shuffled, pair))
    yield on(
        "conv1d", partial(nets.conv1d, 4, 3), 0.05, "shuffled", partial(tasks.shuffled, tasks.waves)
    )
    yield on(
        "transformer",
        partial(_transformer, depth=2),
        3e-3,
        "shuffled",
        partial(tasks.shuffled, tasks.tokens),
        "adam",
    )
    for task in ("wine", "moons"):
        pair, _, _, lr = _TABLES[task]
        yield on(f"mlp-{task}", _mlp(task), lr, "noise", partial(tasks.noise, pair))
        yield on(f"mlp-{task}", _mlp(task), lr, "constant", partial(tasks.constant, pair))
    yield on("mlp-breast-raw", _mlp("breast"), 0.02, "unscaled", tasks.breast_raw)
    yield on("mlp-wine-raw", _mlp("wine"), 0.02, "unscaled", tasks.wine_raw)
    for task in ("digits", "moons"):
        pair, _, _, lr = _TABLES[task]
        yield on(
            f"mlp-{task}-large",
            _mlp(task),
            lr,
            "unscaled",
            partial(tasks.unscaled, pair, factor=300.0),
        )
        yield on(
            f"mlp-{task}-offset",
            _mlp(task),
            lr,
            "unscaled",
            partial(tasks.unscaled, pair, offset=300.0),
        )


def _sizes() -> Iterator[dict[str, Any]]:
    """Too small, held down, or far larger than the data."""
    for name, build, data in (
        ("mlp-digits", _mlp("digits", 3, width=2), tasks.digits),
        ("mlp-sines", _mlp("sines", 2, width=2), tasks.sines),
        ("conv2d", partial(nets.conv2d, 10, 3, width=1), tasks.scans),
        ("conv1d", partial(nets.conv1d, 4, 3, width=1), tasks.waves),
    ):
        yield {
            "name": f"{name}-too-small",
            "kind": "too small",
            "build": build,
            "data": data,
            "lr": 0.02,
            "truths": ("capacity too small",),
        }
    for task in ("digits", "sines"):
        data, _, _, lr = _TABLES[task]
        yield {  # nothing that it could be called is quite right
            "name": f"mlp-{task}-dropout",
            "kind": "too regularized",
            "build": _mlp(task, 4, dropout=0.8),
            "data": data,
            "lr": lr,
            "truths": ("capacity too small", "undecided"),
        }
    for task in ("digits", "breast", "moons", "wine"):
        pair, _, _, lr = _TABLES[task]
        yield {
            "name": f"mlp-{task}-overfits",
            "kind": "overfits",
            "build": _mlp(task, 3, width=128),
            "lr": lr,
            "data": partial(tasks.mislabelled, pair, share=0.3, number=150),
            "truths": ("overfitting",),
        }
