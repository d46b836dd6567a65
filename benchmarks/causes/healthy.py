"""Healthy networks of many families. Their truth is measured: see truth.py.

Each row has a name, a network, a task and a learning rate, and options of `Member`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.causes import tasks
from benchmarks.causes.networks import attention, faults, pictures, signals, vectors
from torch import nn

Row = tuple[str, Any, Any, float, dict[str, Any]]
tower, cnn = vectors.tower, pictures.small_cnn


def healthy() -> Iterator[dict[str, Any]]:
    """Yield the fields of all members that should be healthy."""
    for name, build, data, lr, options in (*_vectors(), *_series(), *_tokens(), *_pictures()):
        yield {
            "name": name,
            "kind": "healthy",
            "build": build,
            "data": data,
            "lr": lr,
            "optimizer": "adam",
            **options,
        }


def _vectors() -> Iterator[Row]:
    yield from _towers()
    shapes = {"spirals": (2, 3), "rings": (5, 4), "clusters": (12, 5), "ledger": (8, 3)}
    tables = {
        "spirals": tasks.spirals,
        "rings": tasks.rings,
        "clusters": tasks.clusters,
        "ledger": tasks.ledger_scaled,
    }
    families: dict[str, tuple[Any, tuple[str, ...], float]] = {
        "residual6": (
            partial(vectors.DeepNet, depth=6, skip=True),
            ("spirals", "rings", "ledger"),
            5e-3,
        ),
        "normed10-residual": (
            partial(vectors.normed_blocks, depth=10, skip=True),
            ("clusters", "rings"),
            5e-3,
        ),
        "preact4": (partial(vectors.PreActivation, depth=4), ("spirals", "ledger"), 3e-3),
        "highway6": (partial(vectors.Highway, depth=6), ("rings", "spirals"), 1e-2),
        "dense4": (partial(vectors.DenselyConnected, depth=4), ("spirals", "clusters"), 1e-2),
        "gated4": (partial(vectors.GatedNet, depth=4), ("rings", "ledger"), 5e-3),
        "selu6": (partial(vectors.self_normalizing, depth=6), ("clusters", "spirals"), 3e-3),
        "wide-and-deep": (vectors.WideAndDeep, ("ledger", "rings"), 5e-3),
        "maxout": (vectors.Maxout, ("spirals", "rings"), 1e-2),
        "post-norm4": (partial(vectors.PostNormTower, depth=4), ("clusters", "ledger"), 2e-3),
    }
    for family, (build, names, lr) in families.items():
        for name in names:
            yield f"{family}-{name}", partial(build, *shapes[name]), tables[name], lr, {}
    regressions: list[tuple[str, Any, Any, float]] = [
        ("preact4-yields", partial(vectors.PreActivation, 10, 1, 4), tasks.yields, 3e-3),
        ("gated3-yields", partial(vectors.GatedNet, 10, 1, 3, 32), tasks.yields, 5e-3),
        ("selu6-impedance", partial(vectors.self_normalizing, 4, 1, 6), tasks.impedance, 3e-3),
        ("wide-and-deep-returns", partial(vectors.WideAndDeep, 6, 1), tasks.returns, 5e-3),
    ]
    for name, build, data, lr in regressions:
        yield name, build, data, lr, {}


def _towers() -> Iterator[Row]:
    sgd = {"optimizer": "sgd"}
    yield "tower3-spirals", partial(tower, 2, 3, 3, 32), tasks.spirals, 1e-2, {}
    yield "tower2-checkerboard", partial(tower, 2, 2, 2, 64), tasks.checkerboard, 1e-2, {}
    yield "tower3-rings-bn", partial(tower, 5, 4, 3, norm=nn.BatchNorm1d), tasks.rings, 1e-2, {}
    yield "tower2-clusters-gelu", partial(tower, 12, 5, 2, 48, nn.GELU), tasks.clusters, 5e-3, {}
    yield "tower3-yields", partial(tower, 10, 1, 3, 48), tasks.yields, 5e-3, {}
    yield "tower2-impedance-tanh", partial(tower, 4, 1, 2, 32, nn.Tanh), tasks.impedance, 1e-2, {}
    yield "tower2-returns", partial(tower, 6, 1, 2, 64), tasks.returns, 5e-3, {}
    yield (
        "tower3-returns-huber",
        partial(tower, 6, 1, 3, 48),
        tasks.returns,
        5e-3,
        {"loss": nn.HuberLoss()},
    )
    yield (
        "tower3-ledger-layer-norm",
        partial(tower, 8, 3, 3, norm=nn.LayerNorm),
        tasks.ledger_scaled,
        5e-3,
        {},
    )
    yield "tower2-pixels-sgd", partial(tower, 64, 10, 2, 32), tasks.pixels, 0.05, sgd
    yield "tower4-pixels-leaky", partial(tower, 64, 10, 4, 32, nn.LeakyReLU), tasks.pixels, 3e-3, {}
    yield from _other_optimizers()
    yield from _log_softmax_tails()


def _log_softmax_tails() -> Iterator[Row]:
    body = partial(tower, 64, 10, 2, 32)
    yield (
        "tower2-pixels-log-softmax-twice",
        partial(vectors.with_tail, body, faults.log_softmax),
        tasks.pixels,
        5e-3,
        {},
    )
    yield (
        "tower2-pixels-nll",
        partial(vectors.with_tail, body, faults.log_softmax),
        tasks.pixels,
        5e-3,
        {"loss": nn.NLLLoss()},
    )


def _other_optimizers() -> Iterator[Row]:
    yield (
        "tower3-clusters-rmsprop",
        partial(tower, 12, 5, 3, 48),
        tasks.clusters,
        1e-3,
        {"optimizer": faults.rmsprop},
    )
    yield (
        "tower3-pixels-nesterov",
        partial(tower, 64, 10, 3, 32),
        tasks.pixels,
        0.03,
        {"optimizer": faults.nesterov},
    )
    yield (
        "tower2-pixels-plain-sgd",
        partial(tower, 64, 10, 2, 48),
        tasks.pixels,
        0.2,
        {"optimizer": faults.plain_sgd},
    )


def _series() -> Iterator[Row]:
    rows: list[tuple[str, Any, Any, float]] = [
        ("tcn4-chirps-bn", partial(signals.TCN, 1, 3, 4, norm=True), tasks.chirps, 5e-3),
        ("tcn6-chirps-residual", partial(signals.TCN, 1, 3, 6, skip=True), tasks.chirps, 5e-3),
        ("tcn4-bumps", partial(signals.TCN, 2, 4, 4, 16), tasks.bumps, 5e-3),
        ("conv-stack4-bumps", partial(signals.conv_stack, 2, 4, 4), tasks.bumps, 5e-3),
        (
            "conv-stack6-bumps-gelu",
            partial(signals.conv_stack, 2, 4, 6, act=nn.GELU),
            tasks.bumps,
            5e-3,
        ),
        ("causal4-forecast", partial(signals.CausalConvs, 1, 4), tasks.forecast, 5e-3),
        (
            "causal4-running-sum",
            partial(signals.CausalConvs, 1, 4, every=True),
            tasks.running_sum,
            1e-2,
        ),
        ("elman-forecast", partial(signals.Elman, 1, 1), tasks.forecast, 3e-3),
        ("elman-running-sum", partial(signals.Elman, 1, 1, every=True), tasks.running_sum, 3e-3),
        ("gru-forecast", partial(signals.GRUNet, 1, 1), tasks.forecast, 1e-2),
        ("gru-marked-sum", partial(signals.GRUNet, 2, 1), tasks.marked_sum, 1e-2),
        ("gru2-running-sum", partial(signals.GRUNet, 1, 1, 16, 2, True), tasks.running_sum, 1e-2),
        ("gru-cell-chirps", partial(signals.CellLoop, 1, 3, hidden=32), tasks.chirps, 1e-2),
        ("lstm-cell-bumps", partial(signals.CellLoop, 2, 4, "lstm"), tasks.bumps, 1e-2),
        ("transformer2-forecast", partial(_series_net, 1, 1, 24, 2), tasks.forecast, 3e-3),
        ("transformer2-chirps", partial(_series_net, 1, 3, 48, 2, patch=4), tasks.chirps, 3e-3),
        ("gin2-crowded", partial(pictures.GIN, 3), tasks.crowded, 5e-3),
        ("gin2-neighbors", partial(pictures.GIN, 1, per_node=True), tasks.neighbors, 5e-3),
        ("graph-attention2-crowded", partial(attention.GraphAttention, 3), tasks.crowded, 5e-3),
    ]
    for name, build, data, lr in rows:
        yield name, build, data, lr, {}


_series_net = attention.SeriesTransformer


def _tokens() -> Iterator[Row]:
    transformer, encoder = attention.TokenTransformer, attention.TorchEncoder
    rows: list[tuple[str, Any, Any, float]] = [
        ("lstm-largest", partial(signals.TokenRNN, 10, 9), tasks.largest, 1e-2),
        ("gru-parity", partial(signals.TokenRNN, 6, 2, kind="gru"), tasks.parity, 1e-2),
        ("lstm-brackets", partial(signals.TokenRNN, 2, 2), tasks.brackets, 1e-2),
        ("token-conv2-largest", partial(signals.TokenConv, 10, 9), tasks.largest, 5e-3),
        ("token-conv3-brackets", partial(signals.TokenConv, 2, 2, depth=3), tasks.brackets, 5e-3),
        ("token-tower2-parity", partial(signals.TokenTower, 6, 2, 8, 2), tasks.parity, 5e-3),
        (
            "token-tower4-brackets-residual",
            partial(signals.TokenTower, 2, 2, 12, 4, skip=True),
            tasks.brackets,
            5e-3,
        ),
        ("transformer2-largest", partial(transformer, 10, 9, 6, 2), tasks.largest, 3e-3),
        ("transformer2-parity", partial(transformer, 6, 2, 8, 2), tasks.parity, 3e-3),
        (
            "transformer3-brackets",
            partial(transformer, 2, 2, 12, 3, pool="first"),
            tasks.brackets,
            3e-3,
        ),
        (
            "transformer2-lookup",
            partial(transformer, 7, 7, 8, 2, dim=32, pool="first"),
            tasks.lookup,
            3e-3,
        ),
        (
            "transformer2-largest-post",
            partial(transformer, 10, 9, 6, 2, mode="post"),
            tasks.largest,
            2e-3,
        ),
        ("encoder1-largest", partial(encoder, 10, 9, 6, 1), tasks.largest, 3e-3),
        ("encoder2-parity", partial(encoder, 6, 2, 8, 2, norm_first=True), tasks.parity, 3e-3),
        ("encoder2-brackets", partial(encoder, 2, 2, 12, 2), tasks.brackets, 1e-3),
    ]
    for name, build, data, lr in rows:
        yield name, build, data, lr, {}


def _pictures() -> Iterator[Row]:
    mixer, vit = pictures.MLPMixer, attention.ViT
    rows: list[tuple[str, Any, Any, float]] = [
        ("cnn-shifted", partial(cnn, 1, 10, size=12), tasks.shifted, 5e-3),
        ("cnn-turned", partial(cnn, 1, 4), tasks.turned, 5e-3),
        ("cnn-inverted-elu", partial(cnn, 1, 10, act=nn.ELU), tasks.inverted, 5e-3),
        ("cnn-compared", partial(cnn, 2, 4), tasks.compared, 5e-3),
        ("conv-tower4-turned-bn", partial(_conv, 1, 4, 4, norm=True), tasks.turned, 1e-2),
        ("conv-tower6-inverted-residual", partial(_conv, 1, 10, 6, 12, True), tasks.inverted, 5e-3),
        ("resnet3-turned", partial(pictures.resnet, 1, 4, 3), tasks.turned, 1e-2),
        ("resnet2-compared", partial(pictures.resnet, 2, 4, 2, 12), tasks.compared, 1e-2),
        ("dense-net4-turned", partial(pictures.dense_net, 1, 4), tasks.turned, 5e-3),
        ("dense-net3-inverted", partial(pictures.dense_net, 1, 10, layers=3), tasks.inverted, 5e-3),
        ("separable-shifted", partial(pictures.separable_for, 1, 10, 12), tasks.shifted, 5e-3),
        ("separable-turned", partial(pictures.separable_for, 1, 4, 8), tasks.turned, 5e-3),
        ("mixer2-turned", partial(mixer, 1, 4, 2), tasks.turned, 3e-3),
        ("mixer3-inverted", partial(mixer, 1, 10, 3), tasks.inverted, 3e-3),
        ("mixer2-compared", partial(mixer, 2, 4, 2), tasks.compared, 3e-3),
        ("u-net-edges", pictures.UNet, tasks.edges, 5e-3),
        ("u-net-blurred", pictures.UNet, tasks.blurred, 5e-3),
        ("denoiser4-blurred", partial(pictures.Denoiser, 4), tasks.blurred, 5e-3),
        ("denoiser6-edges-residual", partial(pictures.Denoiser, 6, skip=True), tasks.edges, 5e-3),
        ("vit2-turned", partial(vit, 1, 4, 2), tasks.turned, 3e-3),
        ("vit2-inverted", partial(vit, 1, 10, 2), tasks.inverted, 3e-3),
    ]
    for name, build, data, lr in rows:
        yield name, build, data, lr, {}


_conv = pictures.ConvTower
