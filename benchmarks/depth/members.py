"""The networks of the benchmark, and how the truth of each is known.

If something is plainly wrong by construction, the truth is written here: shuffled labels, for
example, or a learning rate 200 times the rate of a healthy sibling. The truth of all other members
is measured against a shallower network from the same builder (truth.py). That takes ten times the
steps of a short trial, several learning rates and five seeds. (Verdicts on depth or a rate rest on
trials of four times the steps.)

The members of each kind are split into two halves by a hash of their names. Rules may be tuned on
one half and are scored on the other. Only members are held out, not their data or their family:
siblings are in both halves.
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
from reslearn.diagnose.verdict_rules import VerdictName

HALVES = ("tuning", "held-out")
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Member:
    """A network of the benchmark.

    Attributes:
        kind: Members of one kind are in both halves.
        shallow: Builds a network of about a third of the depth, if the truth is measured.
        shallowest: Builds a network of one layer, if that is something else.
        truths: The verdicts that are right by construction; empty if the truth is measured.
    """

    name: str
    kind: str
    half: str
    build: Callable[[], nn.Module]
    data: Callable[[], Pair]
    lr: float
    optimizer: str = "sgd"
    shallow: Callable[[], nn.Module] | None = None
    shallowest: Callable[[], nn.Module] | None = None
    truths: tuple[VerdictName, ...] = ()

    def problem(self, build: Callable[[], nn.Module] | None = None) -> Problem:
        """Return the problem of `reslearn diagnose`, with another network if `build` is given."""
        return make_problem(
            build or self.build,
            self.data(),
            name=self.name,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=BATCH_SIZE,
        )


Fields = dict[str, Any]
"""The fields of a member without its half."""


@cache
def members() -> tuple[Member, ...]:
    """Return all members; those with measured truths come first."""
    specified = [*_measured(), *_constructed()]
    names_of_kind: dict[str, list[str]] = {}
    for fields in specified:
        names_of_kind.setdefault(fields["kind"], []).append(fields["name"])
    first_half: set[str] = set()
    for names in names_of_kind.values():
        first_half.update(sorted(names, key=_hash)[::2])
    return tuple(
        Member(**fields, half=HALVES[fields["name"] not in first_half]) for fields in specified
    )


def _hash(name: str) -> str:
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


def _measured() -> Iterator[Fields]:
    yield from _perceptrons()
    yield from _other_activations()
    yield from _convolutional_networks()
    yield from _transformers()


def _perceptrons() -> Iterator[Fields]:
    for task, (data, inputs, outputs, lr) in _TABLES.items():
        mlp = partial(nets.mlp, inputs, outputs)
        for norm, width in ((False, 16), (True, 16), (False, 32)):
            suffix = ("-bn" if norm else "") + ("-wide" if width > 16 else "")
            for depth in (3, 6, 12, 24):
                name = f"mlp{depth}-{task}{suffix}"
                build = partial(mlp, norm=norm, width=width)
                yield _against_shallow(name, "mlp", build, depth, data, lr)
        for depth in (32, 48):  # deep enough that depth does hurt
            yield _against_shallow(f"mlp{depth}-{task}", "mlp, deep", mlp, depth, data, lr)
        build = partial(mlp, norm=True)
        yield _against_shallow(f"mlp48-{task}-bn", "mlp, deep", build, 48, data, lr)
        for depth in (7, 13, 25):
            name = f"mlp{depth}-{task}-shortcuts"
            build = partial(mlp, norm=True, shortcuts=True)
            yield _against_shallow(name, "mlp, shortcuts", build, depth, data, lr)


def _other_activations() -> Iterator[Fields]:
    for activation in ("tanh", "gelu", "sigmoid"):
        for task, depth in (("digits", 6), ("moons", 6), ("breast", 16), ("sines", 16)):
            data, inputs, outputs, lr = _TABLES[task]
            name = f"mlp{depth}-{task}-{activation}"
            build = partial(nets.mlp, inputs, outputs, activation=activation)
            yield _against_shallow(name, "mlp, other activations", build, depth, data, lr)


def _convolutional_networks() -> Iterator[Fields]:
    for family, (net, data, outputs) in _CONVOLUTIONAL.items():
        for norm in (False, True):
            build = partial(net, outputs, norm=norm)
            for depth in (3, 6, 12, 20):
                name = f"{family}-{depth}" + ("-bn" if norm else "")
                yield _against_shallow(name, family, build, depth, data, 0.05)
        build = partial(net, outputs, norm=True, shortcuts=True)
        for depth in (7, 13, 21):
            name = f"{family}-{depth}-shortcuts"
            yield _against_shallow(name, f"{family}, shortcuts", build, depth, data, 0.05)


def _transformers() -> Iterator[Fields]:
    for shortcuts in (True, False):
        build = partial(_transformer, shortcuts=shortcuts)
        for depth in (2, 3, 6, 9):
            name = f"transformer{depth}" + ("" if shortcuts else "-no-shortcuts")
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
) -> Fields:
    shallow_depth = max(1, round(depth / 3))
    if "shortcuts" in kind:
        shallow_depth += 1 - shallow_depth % 2  # a first layer and blocks of two
    return {
        "name": name,
        "kind": kind,
        "build": partial(build, depth=depth),
        "shallow": partial(build, depth=shallow_depth),
        "shallowest": partial(build, depth=1) if shallow_depth > 2 else None,
        "data": data,
        "lr": lr,
        "optimizer": optimizer,
    }


def _transformer(*, depth: int, shortcuts: bool = True) -> nn.Module:
    return nets.Transformer(6, 4, 8, depth, shortcuts=shortcuts)


def _mlp(task: str, depth: int = 4, **options: Any) -> Callable[[], nn.Module]:
    _, inputs, outputs, _ = _TABLES[task]
    return partial(nets.mlp, inputs, outputs, depth, **options)


def _constructed() -> Iterator[Fields]:
    """Members with a fault by construction; each has a healthy sibling."""
    yield from _rates()
    yield from _starts()
    yield from _data()
    yield from _sizes()


def _rates() -> Iterator[Fields]:
    """Learning rates that are 200 times too low, or so high that nothing is learned."""
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


def _starts() -> Iterator[Fields]:
    """Biases that switch off most units, and weights that shrink or amplify the signal by layer."""
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


def _data() -> Iterator[Fields]:
    def on(
        name: str,
        build: Callable[[], nn.Module],
        lr: float,
        kind: str,
        data: Callable[[], Pair],
        optimizer: str = "sgd",
    ) -> Fields:
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


def _sizes() -> Iterator[Fields]:
    """Networks that are too small, too regularized, or far too large for the data."""
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
        yield {  # no verdict fits exactly
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
            "data": partial(tasks.mislabeled, pair, share=0.3, num_examples=150),
            "truths": ("overfitting",),
        }
