"""Deep networks whose truth is measured: plain ones, and residual ones that are only slow.

Each row has a builder of (depth, skip), the depth, the depth of the shallow twin, a task, a
learning rate and an optimizer.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.causes import tasks
from benchmarks.causes.networks import attention, faults, pictures, signals, vectors
from torch import nn

Row = tuple[str, Any, int, int, Any, float, str]


def degraded() -> Iterator[dict[str, Any]]:
    """Yield the fields of plain networks that should be too deep to train."""
    for name, build, depth, shallow, data, lr, optimizer in (*_vectors(), *_others()):
        yield {
            "name": f"{name}-plain{depth}",
            "kind": "degraded",
            "build": partial(build, depth=depth, skip=False),
            "shallow": partial(build, depth=shallow, skip=False),
            "shortcuts": partial(build, depth=depth, skip=True),
            "data": data,
            "lr": lr,
            "optimizer": optimizer,
        }


def slow() -> Iterator[dict[str, Any]]:
    """Yield the fields of deep networks with shortcuts, which are at most slow."""
    for name, build, depth, shallow, data, lr, optimizer in (*_residual(), *_attentive()):
        yield {
            "name": f"{name}-deep{depth}",
            "kind": "slow or post-norm",
            "build": partial(build, depth=depth),
            "shallow": partial(build, depth=shallow),
            "data": data,
            "lr": lr,
            "optimizer": optimizer,
        }


def _vectors() -> Iterator[Row]:
    net, normed = vectors.DeepNet, vectors.normed_blocks
    he, xavier = faults.he, faults.xavier
    yield "spirals", partial(net, 2, 3), 20, 4, tasks.spirals, 3e-3, "adam"
    yield "spirals-sgd", partial(net, 2, 3), 28, 4, tasks.spirals, 0.05, "sgd"
    yield "checkerboard", partial(net, 2, 2, width=48), 24, 4, tasks.checkerboard, 3e-3, "adam"
    yield "rings", partial(net, 5, 4), 24, 4, tasks.rings, 3e-3, "adam"
    yield "rings-sgd", partial(net, 5, 4), 16, 4, tasks.rings, 0.05, "sgd"
    yield "clusters", partial(net, 12, 5), 24, 4, tasks.clusters, 2e-3, "adam"
    yield "clusters-sgd", partial(net, 12, 5), 18, 4, tasks.clusters, 0.03, "sgd"
    yield "yields", partial(net, 10, 1, width=32), 24, 4, tasks.yields, 3e-3, "adam"
    yield "impedance", partial(net, 4, 1), 22, 4, tasks.impedance, 3e-3, "adam"
    yield "returns", partial(net, 6, 1), 28, 4, tasks.returns, 3e-3, "adam"
    yield "pixels", partial(net, 64, 10, width=32), 26, 4, tasks.pixels, 1e-3, "adam"
    yield "ledger", partial(net, 8, 3), 24, 4, tasks.ledger_scaled, 3e-3, "adam"
    yield "rings-he", partial(net, 5, 4, init=he), 44, 4, tasks.rings, 0.02, "sgd"
    yield "clusters-he", partial(net, 12, 5, init=he), 48, 4, tasks.clusters, 0.02, "sgd"
    yield "spirals-he", partial(net, 2, 3, width=16, init=he), 40, 4, tasks.spirals, 0.02, "sgd"
    yield (
        "clusters-tanh",
        partial(net, 12, 5, act="tanh", init=xavier),
        48,
        4,
        tasks.clusters,
        0.02,
        "sgd",
    )
    yield "spirals-tanh", partial(net, 2, 3, act="tanh"), 30, 4, tasks.spirals, 3e-3, "adam"
    yield "pixels-tanh", partial(net, 64, 10, act="tanh"), 36, 4, tasks.pixels, 0.02, "sgd"
    yield "rings-sigmoid", partial(net, 5, 4, act="sigmoid"), 10, 2, tasks.rings, 1e-2, "adam"
    yield "clusters-sigmoid", partial(net, 12, 5, act="sigmoid"), 10, 2, tasks.clusters, 0.1, "sgd"
    yield "pixels-sigmoid", partial(net, 64, 10, act="sigmoid"), 10, 2, tasks.pixels, 0.1, "sgd"
    yield "clusters-gelu", partial(net, 12, 5, act="gelu"), 18, 4, tasks.clusters, 3e-3, "adam"
    yield "yields-gelu", partial(net, 10, 1, act="gelu"), 18, 4, tasks.yields, 3e-3, "adam"
    yield "pixels-silu", partial(net, 64, 10, act="silu"), 18, 4, tasks.pixels, 0.02, "sgd"
    yield "clusters-bn", partial(normed, 12, 5), 44, 4, tasks.clusters, 0.02, "sgd"
    yield "rings-bn", partial(normed, 5, 4), 36, 4, tasks.rings, 3e-3, "adam"
    yield "spirals-bn", partial(normed, 2, 3), 36, 4, tasks.spirals, 3e-3, "adam"
    yield (
        "clusters-layer-norm",
        partial(normed, 12, 5, norm=nn.LayerNorm),
        40,
        4,
        tasks.clusters,
        0.02,
        "sgd",
    )
    yield "rings-gated", partial(vectors.GatedNet, 5, 4), 12, 3, tasks.rings, 3e-3, "adam"
    yield "yields-gated", partial(vectors.GatedNet, 10, 1), 14, 3, tasks.yields, 3e-3, "adam"
    yield "pixels-gated", partial(vectors.GatedNet, 64, 10), 12, 2, tasks.pixels, 0.05, "sgd"


def _others() -> Iterator[Row]:
    tcn, stack, conv = signals.TCN, signals.conv_stack, pictures.ConvTower
    token_tower, mixer = signals.TokenTower, pictures.MLPMixer
    yield "chirps-tcn", partial(tcn, 1, 3), 20, 4, tasks.chirps, 3e-3, "adam"
    yield "chirps-tcn-sgd", partial(tcn, 1, 3), 24, 4, tasks.chirps, 0.05, "sgd"
    yield "bumps-tcn", partial(tcn, 2, 4), 22, 4, tasks.bumps, 3e-3, "adam"
    yield "bumps-stack", partial(stack, 2, 4), 20, 4, tasks.bumps, 3e-3, "adam"
    yield "bumps-stack-gelu", partial(stack, 2, 4, act=nn.GELU), 16, 4, tasks.bumps, 3e-3, "adam"
    yield "chirps-stack-tanh", partial(stack, 1, 3, act=nn.Tanh), 24, 4, tasks.chirps, 0.02, "sgd"
    yield "forecast-causal", partial(signals.CausalConvs, 1), 10, 4, tasks.forecast, 3e-3, "adam"
    yield (
        "running-sum-causal",
        partial(signals.CausalConvs, 1, every=True),
        12,
        4,
        tasks.running_sum,
        5e-3,
        "adam",
    )
    yield "parity-tower", partial(token_tower, 6, 2, 8), 22, 4, tasks.parity, 3e-3, "adam"
    yield "brackets-tower", partial(token_tower, 2, 2, 12), 24, 4, tasks.brackets, 0.05, "sgd"
    yield "largest-tower", partial(token_tower, 10, 9, 6), 24, 4, tasks.largest, 3e-3, "adam"
    yield "largest-conv", partial(signals.TokenConv, 10, 9), 14, 3, tasks.largest, 3e-3, "adam"
    yield "brackets-conv", partial(signals.TokenConv, 2, 2), 16, 3, tasks.brackets, 3e-3, "adam"
    yield "largest-attention", partial(_token_net, 10, 9, 6), 6, 2, tasks.largest, 2e-3, "adam"
    yield "parity-attention", partial(_token_net, 6, 2, 8), 6, 2, tasks.parity, 2e-3, "adam"
    yield "brackets-attention", partial(_token_net, 2, 2, 12), 7, 2, tasks.brackets, 2e-3, "adam"
    yield "turned-vit", partial(_picture_net, 1, 4), 6, 2, tasks.turned, 2e-3, "adam"
    yield "inverted-vit", partial(_picture_net, 1, 10), 7, 2, tasks.inverted, 1e-3, "adam"
    yield "turned-mixer", partial(mixer, 1, 4), 8, 2, tasks.turned, 2e-3, "adam"
    yield "inverted-mixer", partial(mixer, 1, 10), 10, 2, tasks.inverted, 2e-3, "adam"
    yield "turned-conv", partial(conv, 1, 4), 20, 4, tasks.turned, 3e-3, "adam"
    yield "inverted-conv", partial(conv, 1, 10), 22, 4, tasks.inverted, 0.05, "sgd"
    yield "compared-conv", partial(conv, 2, 4, width=10), 20, 4, tasks.compared, 3e-3, "adam"
    yield "turned-conv-bn", partial(conv, 1, 4, norm=True), 36, 4, tasks.turned, 3e-3, "adam"
    yield "edges-denoiser", partial(pictures.Denoiser), 20, 4, tasks.edges, 3e-3, "adam"
    yield "blurred-denoiser", partial(pictures.Denoiser), 16, 4, tasks.blurred, 3e-3, "adam"
    yield "crowded-gcn", partial(pictures.GCN, 3), 16, 3, tasks.crowded, 3e-3, "adam"
    yield (
        "neighbors-gcn",
        partial(pictures.GCN, 1, per_node=True),
        14,
        3,
        tasks.neighbors,
        3e-3,
        "adam",
    )


def _token_net(vocabulary: int, outputs: int, length: int, *, depth: int, skip: bool) -> Any:
    mode = "pre" if skip else "none"
    build: Any = attention.TokenTransformer
    return build(vocabulary, outputs, length, depth, mode=mode)


def _picture_net(channels: int, outputs: int, *, depth: int, skip: bool) -> Any:
    build: Any = attention.ViT
    return build(channels, outputs, depth, mode="pre" if skip else "none")


def _residual() -> Iterator[Row]:
    net = partial(vectors.DeepNet, skip=True)
    normed = partial(vectors.normed_blocks, skip=True)
    resnet = _resnet
    yield "spirals-residual", partial(net, 2, 3), 26, 6, tasks.spirals, 0.02, "sgd"
    yield "rings-residual", partial(net, 5, 4), 32, 8, tasks.rings, 1e-3, "adam"
    yield "yields-residual", partial(net, 10, 1), 24, 6, tasks.yields, 1e-3, "adam"
    yield "clusters-normed", partial(normed, 12, 5), 30, 8, tasks.clusters, 0.01, "sgd"
    yield "pixels-normed", partial(normed, 64, 10), 36, 8, tasks.pixels, 0.01, "sgd"
    yield "rings-preact", partial(vectors.PreActivation, 5, 4), 16, 4, tasks.rings, 1e-3, "adam"
    yield "yields-preact", partial(vectors.PreActivation, 10, 1), 14, 4, tasks.yields, 5e-4, "adam"
    yield "pixels-highway", partial(vectors.Highway, 64, 10), 20, 5, tasks.pixels, 0.03, "sgd"
    yield (
        "clusters-highway",
        partial(vectors.Highway, 12, 5, gate_bias=-3.0),
        24,
        6,
        tasks.clusters,
        3e-3,
        "adam",
    )
    yield "rings-gated", partial(vectors.GatedNet, 5, 4), 18, 4, tasks.rings, 2e-3, "adam"
    yield "turned-resnet", partial(resnet, 1, 4), 9, 2, tasks.turned, 0.02, "sgd"
    yield "inverted-resnet", partial(resnet, 1, 10), 8, 2, tasks.inverted, 2e-3, "adam"
    yield "compared-resnet-zero", partial(resnet, 2, 4, True), 8, 2, tasks.compared, 0.02, "sgd"
    yield "chirps-tcn", partial(signals.TCN, 1, 3, skip=True), 18, 4, tasks.chirps, 1e-3, "adam"
    yield (
        "bumps-stack",
        partial(signals.conv_stack, 2, 4, skip=True),
        20,
        4,
        tasks.bumps,
        1e-3,
        "adam",
    )
    yield "forecast-causal", partial(signals.CausalConvs, 1), 12, 4, tasks.forecast, 2e-3, "adam"
    yield (
        "edges-denoiser",
        partial(pictures.Denoiser, skip=True),
        14,
        4,
        tasks.edges,
        1e-3,
        "adam",
    )
    yield (
        "largest-conv",
        partial(signals.TokenConv, 10, 9, skip=True),
        14,
        3,
        tasks.largest,
        1e-3,
        "adam",
    )


def _attentive() -> Iterator[Row]:
    tokens = attention.TokenTransformer
    yield "turned-mixer", partial(pictures.MLPMixer, 1, 4), 7, 2, tasks.turned, 1e-3, "adam"
    yield "turned-vit", partial(attention.ViT, 1, 4), 6, 2, tasks.turned, 1e-3, "adam"
    yield "largest-transformer", partial(tokens, 10, 9, 6), 7, 2, tasks.largest, 1e-3, "adam"
    yield "brackets-transformer", partial(tokens, 2, 2, 12), 6, 2, tasks.brackets, 1e-3, "adam"
    yield (
        "clusters-post-norm",
        partial(vectors.PostNormTower, 12, 5),
        12,
        4,
        tasks.clusters,
        1e-3,
        "adam",
    )
    yield "rings-post-norm", partial(vectors.PostNormTower, 5, 4), 16, 4, tasks.rings, 1e-3, "adam"
    yield "largest-post", partial(tokens, 10, 9, 6, mode="post"), 4, 2, tasks.largest, 5e-4, "adam"


def _resnet(channels: int, outputs: int, zero_init: bool = False, *, depth: int) -> Any:
    build: Any = pictures.resnet
    return build(channels, outputs, depth, zero_init=zero_init)
