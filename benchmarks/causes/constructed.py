"""Networks with a fault that is put in on purpose, each with its cured twin.

`cured` lists the fields of the cured twin. truth.py checks that the twin learns, and that the
network with the fault is worse.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from benchmarks.causes import tasks
from benchmarks.causes.networks import attention, faults, pictures, signals, vectors
from torch import nn

Fields = dict[str, Any]
tower, cnn, with_tail = vectors.tower, pictures.small_cnn, vectors.with_tail

# Networks that learn, with their tasks and learning rates. The faults are put into these.
SOUND: dict[str, tuple[Callable[..., Any], Any, float]] = {
    "tower-clusters": (partial(tower, 12, 5, 4, 32), tasks.clusters, 3e-3),
    "tower-pixels": (partial(tower, 64, 10, 5, 32), tasks.pixels, 3e-3),
    "tower-rings": (partial(tower, 5, 4, 3, 48), tasks.rings, 5e-3),
    "tower-spirals": (partial(tower, 2, 3, 3, 32), tasks.spirals, 1e-2),
    "tower-ledger": (partial(tower, 8, 3, 3, 48), tasks.ledger_scaled, 5e-3),
    "tanh-clusters": (partial(tower, 12, 5, 5, 32, nn.Tanh), tasks.clusters, 3e-3),
    "tower-yields": (partial(tower, 10, 1, 3, 48), tasks.yields, 5e-3),
    "tower-impedance": (partial(tower, 4, 1, 3, 32), tasks.impedance, 5e-3),
    "wide-returns": (partial(vectors.WideAndDeep, 6, 1), tasks.returns, 5e-3),
    "dense-rings": (partial(vectors.DenselyConnected, 5, 4, 4), tasks.rings, 5e-3),
    "cnn-turned": (partial(cnn, 1, 4), tasks.turned, 5e-3),
    "cnn-inverted": (partial(cnn, 1, 10), tasks.inverted, 5e-3),
    "cnn-compared": (partial(cnn, 2, 4), tasks.compared, 5e-3),
    "cnn-shifted": (partial(cnn, 1, 10, size=12), tasks.shifted, 5e-3),
    "stack-bumps": (partial(signals.conv_stack, 2, 4, 6, 12), tasks.bumps, 5e-3),
    "tcn-chirps": (partial(signals.TCN, 1, 3, 4, 16), tasks.chirps, 5e-3),
    "denoiser-edges": (partial(pictures.Denoiser, 6), tasks.edges, 5e-3),
    "u-net-blurred": (pictures.UNet, tasks.blurred, 5e-3),
    "gru-forecast": (partial(signals.GRUNet, 1, 1), tasks.forecast, 1e-2),
    "elman-forecast": (partial(signals.Elman, 1, 1), tasks.forecast, 3e-3),
    "elman-sum": (partial(signals.Elman, 1, 1, every=True), tasks.running_sum, 3e-3),
    "lstm-largest": (partial(signals.TokenRNN, 10, 9), tasks.largest, 1e-2),
    "token-tower-largest": (
        partial(signals.TokenTower, 10, 9, 6, 4, width=48),
        tasks.largest,
        3e-3,
    ),
    "transformer-largest": (
        partial(attention.TokenTransformer, 10, 9, 6, 2),
        tasks.largest,
        3e-3,
    ),
    "vit-turned": (partial(attention.ViT, 1, 4, 2), tasks.turned, 3e-3),
    "mixer-turned": (partial(pictures.MLPMixer, 1, 4, 2), tasks.turned, 3e-3),
    "mixer-inverted": (partial(pictures.MLPMixer, 1, 10, 2), tasks.inverted, 3e-3),
    "gin-crowded": (partial(pictures.GIN, 3), tasks.crowded, 5e-3),
    "gin-neighbors": (partial(pictures.GIN, 1, per_node=True), tasks.neighbors, 5e-3),
}


def constructed() -> Iterator[Fields]:
    """Yield the fields of all members whose truth is known by construction."""
    yield from _output_layers()
    yield from _initializations()
    yield from _rates()
    yield from _warm_ups()
    yield from _data()
    yield from _wiring()


def _fields(sound: str, fault: str, kind: str, truth: str, **changes: Any) -> Fields:
    """Return a sound network with `changes`; the twin has the sound fields in their place."""
    build, data, lr = SOUND[sound]
    fields = {"build": build, "data": data, "lr": lr, "optimizer": "adam", **changes}
    cured = {"build": build, "data": data, "lr": lr, "optimizer": "adam"}
    return {
        "name": f"{sound}-{fault}",
        "kind": kind,
        "truths": (truth,),
        "cured": {key: value for key, value in cured.items() if key in changes},
        **fields,
    }


def _output_layers() -> Iterator[Fields]:
    """Softmax or sigmoid before a loss of logits, or a range that the targets leave."""
    logits: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "softmax": (
            faults.softmax,
            (
                "tower-clusters",
                "cnn-turned",
                "lstm-largest",
                "gin-crowded",
                "transformer-largest",
                "mixer-inverted",
                "stack-bumps",
            ),
        ),
        "sigmoid": (faults.between_zero_and_one, ("tower-rings", "vit-turned", "tcn-chirps")),
        "cold-softmax": (faults.cold_softmax, ("tower-spirals",)),
        "unit-length": (faults.normalized, ("tower-pixels", "cnn-inverted")),
        "clamped": (faults.clamped, ("cnn-compared", "token-tower-largest")),
        "softmax-over-batch": (faults.softmax_over_batch, ("tower-ledger", "cnn-shifted")),
    }
    values = {
        "relu": (torch.relu, ("tower-yields", "gru-forecast", "u-net-blurred")),
        "sigmoid": (
            faults.between_zero_and_one,
            ("tower-impedance", "elman-forecast", "gin-neighbors", "elman-sum"),
        ),
    }
    for tails in (logits, values):
        for fault, (tail, names) in tails.items():
            for name in names:
                build = partial(with_tail, SOUND[name][0], tail)
                yield _fields(name, fault, "output layer", "output layer", build=build)
    large = partial(tasks.magnified, tasks.returns, factor=4.0)
    body = SOUND["wide-returns"][0]
    yield {
        **_fields("wide-returns", "tanh", "output layer", "output layer", data=large),
        "build": partial(with_tail, body, torch.tanh),
        "cured": {"build": body},
    }
    column = partial(tower, 6, 2, 2, 32)  # two layers more than are used: only one output
    for fault, tail in (("sigmoid-twice", _probability), ("softmax-of-one", _softmax_of_one)):
        yield {
            "name": f"tower-chances-{fault}",
            "kind": "output layer",
            "truths": ("output layer",),
            "build": partial(with_tail, column, tail),
            "cured": {"build": partial(with_tail, column, _first_column)},
            "data": tasks.chances,
            "lr": 5e-3,
            "optimizer": "adam",
            "loss": nn.BCEWithLogitsLoss(),
        }


def _first_column(x: Any) -> Any:
    return x[:, :1]


def _probability(x: Any) -> Any:
    return x[:, :1].sigmoid()


def _softmax_of_one(x: Any) -> Any:
    return x[:, :1].softmax(1)


def _initializations() -> Iterator[Fields]:
    signal = "vanishing or exploding signal"
    faulty: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "zeros": (faults.zeros, ("tower-clusters", "cnn-turned", "stack-bumps", "u-net-blurred")),
        "halves": (faults.halves, ("tower-rings", "cnn-inverted", "tcn-chirps")),
        "hundredths": (faults.hundredths, ("tower-pixels", "cnn-shifted", "token-tower-largest")),
        "tiny": (faults.tiny, ("tower-clusters", "cnn-compared", "denoiser-edges", "stack-bumps")),
        "small": (faults.small, ("tower-pixels", "stack-bumps", "denoiser-edges")),
        "randn": (faults.unit, ("tower-pixels", "tanh-clusters", "cnn-compared", "stack-bumps")),
        "huge": (faults.huge, ("tower-rings", "tanh-clusters", "cnn-turned", "mixer-turned")),
        "positive": (faults.positive, ("tower-pixels", "cnn-inverted", "denoiser-edges")),
    }
    for fault, (init, names) in faulty.items():
        for name in names:
            build = partial(vectors.initialized, SOUND[name][0], init)
            yield _fields(name, fault, "initialization", signal, build=build)
    for name in ("elman-sum", "gru-forecast"):
        build = partial(vectors.initialized, SOUND[name][0], faults.strong_recurrence)
        yield _fields(name, "strong-recurrence", "initialization", signal, build=build)
    for name in (
        *("tower-clusters", "tower-rings", "cnn-turned", "stack-bumps", "tcn-chirps"),
        *("denoiser-edges", "token-tower-largest", "dense-rings"),
    ):
        build = partial(vectors.initialized, SOUND[name][0], faults.negative_bias)
        yield _fields(name, "negative-biases", "dead units", "dead units", build=build)


def _rates() -> Iterator[Fields]:
    """Learning rates that are 300 times too low, or 300 times too high."""
    for name in (
        *("tower-clusters", "cnn-turned", "gru-forecast", "transformer-largest"),
        *("gin-neighbors", "mixer-inverted", "u-net-blurred", "dense-rings"),
    ):
        for word, factor in (("low", 1 / 300), ("high", 300.0)):
            lr = SOUND[name][2] * factor
            yield _fields(name, f"rate-too-{word}", "learning rate", "bad learning rate", lr=lr)


def _warm_ups() -> Iterator[Fields]:
    """Deep post-norm transformers at a rate that needs a warm-up; the twin has one."""
    tokens = partial(attention.TokenTransformer, mode="post")
    series = partial(attention.SeriesTransformer, mode="post", patch=4)
    rows: list[tuple[str, Any, Any, float]] = [
        ("largest-post6", partial(tokens, 10, 9, 6, 6), tasks.largest, 3e-3),
        ("largest-post10", partial(tokens, 10, 9, 6, 10), tasks.largest, 2e-3),
        ("parity-post8", partial(tokens, 6, 2, 8, 8), tasks.parity, 3e-3),
        ("brackets-post8", partial(tokens, 2, 2, 12, 8), tasks.brackets, 3e-3),
        ("largest-encoder8", partial(attention.TorchEncoder, 10, 9, 6, 8), tasks.largest, 3e-3),
        ("brackets-encoder6", partial(attention.TorchEncoder, 2, 2, 12, 6), tasks.brackets, 4e-3),
        ("turned-vit-post8", partial(attention.ViT, 1, 4, 8, mode="post"), tasks.turned, 3e-3),
        ("chirps-post6", partial(series, 1, 3, 48, 6), tasks.chirps, 4e-3),
    ]
    for name, build, data, lr in rows:
        yield {
            "name": f"{name}-no-warm-up",
            "kind": "slow or post-norm",
            "truths": ("bad learning rate",),
            "build": build,
            "data": data,
            "lr": lr,
            "optimizer": "adam",
            "cured": {"optimizer": faults.WarmedAdam},
        }


def _data() -> Iterator[Fields]:
    def fault(name: str, word: str, data: Any, **options: Any) -> Fields:
        return {**_fields(name, word, "data", "data fault", data=data), **options}

    memorized = {"measured_on": "held-out"}
    for name in ("tower-clusters", "cnn-turned", "transformer-largest", "tcn-chirps"):
        data = partial(tasks.shuffled, SOUND[name][1])
        yield fault(name, "shuffled", data, **memorized)
    for name in ("tower-yields", "tower-rings"):
        data = partial(tasks.reversed_rows, SOUND[name][1])
        yield fault(name, "sorted-inputs", data, **memorized)
    for name in ("tower-impedance", "tower-pixels"):
        yield fault(name, "nan", partial(tasks.with_gaps, SOUND[name][1]))
    for name in ("cnn-inverted", "stack-bumps"):
        yield fault(name, "erased", partial(tasks.erased, SOUND[name][1]))
    sgd = {"optimizer": "sgd", "lr": 0.02}
    raw = {"tower-ledger": tasks.ledger, "tower-impedance": tasks.impedance_raw}
    for name, table in raw.items():
        yield fault(name, "raw", table, **sgd)
    for name, factor, offset in (
        ("tower-clusters", 500.0, 0.0),
        ("tower-pixels", 1.0, 500.0),
        ("cnn-turned", 127.5, 127.5),
        ("cnn-compared", 1e-3, 0.0),
        ("tower-spirals", 1.0, 1000.0),
        ("stack-bumps", 1000.0, 0.0),
    ):
        data = partial(tasks.scaled, SOUND[name][1], factor=factor, offset=offset)
        yield fault(name, f"times-{factor:g}-plus-{offset:g}", data, **sgd)


def _wiring() -> Iterator[Fields]:
    """Layers that no optimizer gets."""
    net, conv, heads = faults.Unregistered, faults.UnregisteredConv, faults.UnregisteredHeads
    rows: list[tuple[str, Any, dict[str, Any], Any, float]] = [
        ("clusters-list8", partial(net, 12, 5, 8), _registered, tasks.clusters, 3e-3),
        ("rings-list10", partial(net, 5, 4, 10), _registered, tasks.rings, 3e-3),
        ("pixels-list12", partial(net, 64, 10, 12), _registered, tasks.pixels, 2e-3),
        ("turned-dict6", partial(conv, 4, 6), _registered_dict, tasks.turned, 5e-3),
        ("inverted-dict8", partial(conv, 10, 8), _registered_dict, tasks.inverted, 5e-3),
        ("lookup-tensors", partial(heads, 7, 7, 8), _parameters, tasks.lookup, 1e-2),
        ("largest-tensors", partial(heads, 10, 9, 6), _parameters, tasks.largest, 1e-2),
        ("clusters-in-forward", partial(faults.MadeInForward, 12, 5), _once, tasks.clusters, 5e-3),
        ("pixels-in-forward", partial(faults.MadeInForward, 64, 10), _once, tasks.pixels, 5e-3),
    ]
    for name, build, cure, data, lr in rows:
        yield {
            "name": name,
            "kind": "wiring",
            "truths": ("untrained parameters",),
            "build": build,
            "cured": {"build": partial(build, **cure)},
            "data": data,
            "lr": lr,
            "optimizer": "adam",
        }
    for name in ("tower-clusters", "cnn-turned"):
        yield _fields(
            name,
            "few-parameters",
            "wiring",
            "untrained parameters",
            optimizer=faults.first_parameters_only,
        )


_registered = {"container": nn.ModuleList}
_registered_dict = {"container": nn.ModuleDict}
_parameters = {"wrap": nn.Parameter}
_once = {"once": True}
