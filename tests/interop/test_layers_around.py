"""Layers before and behind a network change its outputs, and are never left out silently."""

import sys
from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.interop import (
    Identity,
    WeightsError,
    identify_checkpoint,
    load_network,
    read_checkpoint,
)

sys.path.insert(0, str(Path(__file__).parent))
from layouts import State, behind, checkpoint_of, renamed, small_network, state_of, without_head

IMAGE = torch.rand(1, 3, 32, 32)
STATE = state_of(small_network())


def norm(path: str, channels: int) -> State:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{path}.{leaf}": torch.ones(channels) for leaf in leaves}


def identified(state: State) -> Identity:
    return identify_checkpoint(checkpoint_of(state_dict=state))


BEHIND_THE_HEAD: dict[str, State] = {
    "a matrix": {"fc2.weight": torch.zeros(7, 5)},
    "a matrix of a wrapper": {"classifier.1.weight": torch.zeros(7, 5)},
    "a batch norm": norm("last", 5),
}


@pytest.mark.parametrize("kind", BEHIND_THE_HEAD)
@pytest.mark.parametrize("prefix", ["", "model.resnet."])
def test_a_head_before_further_layers_gives_no_classes(kind: str, prefix: str) -> None:
    """A ResNet with its 1000 outputs, and a layer from 1000 to 7, is usual in code of beginners."""
    further = BEHIND_THE_HEAD[kind]
    identity = identified(behind(prefix, STATE) | further)
    assert identity.num_classes is None
    (note,) = [note for note in identity.notes if "takes these values" in note]
    assert f"{prefix}fc.weight" in note and any(name in note for name in further)


def test_a_mean_of_images_is_no_layer_behind_the_head() -> None:
    statistics = {"normalizer.mean": torch.zeros(5), "normalizer.std": torch.ones(5)}
    assert identified(behind("model.", STATE) | statistics).num_classes == 5


BEFORE_THE_STEM: dict[str, State] = {
    "gray to color": {"conv.weight": torch.zeros(3, 1, 1, 1), "conv.bias": torch.zeros(3)},
    "other colors": {"colors.weight": torch.zeros(3, 3, 3, 3)},
    "a batch norm": norm("bn", 3),
    "a layer norm": {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)},
}


@pytest.mark.parametrize("kind", BEFORE_THE_STEM)
def test_layers_before_the_stem_need_partial(kind: str) -> None:
    layers = BEFORE_THE_STEM[kind]
    identity = identified(layers | behind("resnet.", STATE))
    assert identity.unexplained == tuple(layers)
    with pytest.raises(WeightsError, match=r"in the file only.*--partial"):
        load_network(identity)


@pytest.mark.parametrize(
    ("name", "shape", "is_beside"),
    [
        ("temperature", (1,), False),
        ("calibration.prior", (5,), False),
        ("loss.factor", (1,), True),
        ("average.decay", (), True),
        ("average.weights", (3,), True),
    ],
)
def test_factors_of_a_wrapper_are_not_left_out_silently(
    name: str, shape: tuple[int, ...], is_beside: bool
) -> None:
    """Temperature scaling wraps a network with its head."""
    counts = {"f1.true_positives": torch.ones(5, dtype=torch.int64)}
    identity = identified(behind("model.", STATE) | {name: torch.ones(shape)} | counts)
    assert identity.unexplained == (() if is_beside else (name,))


LAYER_NORMS: dict[str, State] = {
    "of outputs": {"norm.weight": torch.ones(5), "norm.bias": torch.zeros(5)},
    "of features": {"norm.weight": torch.ones(64), "norm.bias": torch.zeros(64)},
    "of maps": {"norm.weight": torch.ones(64, 1, 1), "norm.bias": torch.zeros(64, 1, 1)},
    "without biases": {"norm.weight": torch.ones(64)},
    "with names of TensorFlow": {"norm.gamma": torch.ones(5), "norm.beta": torch.zeros(5)},
}


@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_layer_norm_of_a_wrapper_needs_partial(kind: str) -> None:
    norm_tensors = LAYER_NORMS[kind]
    identity = identified(behind("net.", STATE) | norm_tensors)
    assert identity.num_classes == 5 and identity.unexplained == tuple(norm_tensors)


@pytest.mark.parametrize(
    ("name", "shape", "is_beside"),
    [
        ("attn.q", (1, 1, 64), False),
        ("attn.q", (1, 64), False),
        ("attn.q", (1, 4, 64), False),
        ("pool.query", (4, 64), False),
        ("cls_token", (2, 64), False),
        ("attn.in_proj_weight", (192, 64), False),
        ("transform", (64, 64), False),
        ("scores.precision", (64, 64), True),
        ("memory.queue", (1, 64), True),
        ("memory.keys", (9, 64), True),
    ],
)
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_a_query_of_an_attention_pool_needs_partial(
    name: str, shape: tuple[int, ...], is_beside: bool, is_wrapped: bool
) -> None:
    """Attention without other weights pools the features between trunk and head."""
    head = {"fc.weight": torch.zeros(5, 64), "fc.bias": torch.zeros(5)}
    state = behind("net.", STATE) if is_wrapped else behind("net.", without_head(STATE)) | head
    identity = identified(state | {name: torch.zeros(shape)})
    assert identity.num_classes == 5
    assert identity.unexplained == (() if is_beside else (name,))


def test_other_small_tensors_of_a_wrapper_lie_beside_the_network() -> None:
    """Weights of a loss for 3 classes, the end of a decoder, and the boxes of a detector."""
    tensors = {
        "criterion.weight": torch.ones(3),
        "decoder.weight": torch.zeros(3, 16, 3, 3),
        "rpn.boxes.weight": torch.zeros(3, 64, 1, 1),
        "rpn.boxes.bias": torch.zeros(3),
    }
    identity = identified(behind("backbone.", STATE) | tensors)
    assert (identity.beside, identity.unexplained) == (tuple(tensors), ())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("embedding", "its name says so"),
        ("whiten", "its name says so"),
        ("arcface", "metric learning"),
        ("arc_margin", "metric learning"),
        ("metric.cosface", "metric learning"),
        ("head.cosine", "metric learning"),
    ],
)
def test_a_head_of_metric_learning_gives_no_classes(name: str, reason: str) -> None:
    """Losses with margins compare normalized vectors: a linear head would order classes wrongly."""
    state = behind("backbone.", without_head(STATE)) | {f"{name}.weight": torch.zeros(9, 64)}
    identity = identified(state)
    assert (identity.num_classes, identity.beside) == (None, (f"{name}.weight",))
    assert any(reason in note for note in identity.notes)
    assert not any("was found by its shape" in note for note in identity.notes)


def test_an_embedding_network_gives_no_classes() -> None:
    assert identified(behind("embedding_net.", STATE)).num_classes is None
    assert identified(behind("architecture.", STATE)).num_classes == 5


def test_a_second_matrix_of_the_same_features_is_named() -> None:
    """Which of the two is the head is not known."""
    state = behind("backbone.", STATE) | {"classifier.weight": torch.zeros(7, 64)}
    identity = identified(state)
    assert identity.num_classes == 5 and identity.beside == ("classifier.weight",)
    assert any("classifier.weight can take the same features" in note for note in identity.notes)


@pytest.mark.parametrize("name", ["prelu.weight", "act1.weight"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_one_learned_activation_for_all_layers_is_refused(name: str, prefix: str) -> None:
    with pytest.raises(WeightsError, match=f"it has {prefix}{name} .a learned activation"):
        identified(behind(prefix, STATE | {name: torch.ones(1)}))


OTHER_FORMS: dict[str, State] = {
    "pruned": {"fc.weight_orig": torch.zeros(5, 64), "fc.weight_mask": torch.zeros(5, 64)},
    "weight norm": {"fc.weight_g": torch.zeros(5, 1), "fc.weight_v": torch.zeros(5, 64)},
    "parametrized": {"fc.parametrizations.weight.original1": torch.zeros(5, 64)},
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_head_in_another_form_is_named(form: str) -> None:
    tensors = OTHER_FORMS[form] | {"fc.bias": torch.zeros(5)}
    identity = identified(without_head(STATE) | tensors)
    assert (identity.num_classes, identity.unexplained) == (None, ())
    (note,) = [note for note in identity.notes if "may be its head" in note]
    assert "pruned or normalized weights" in note


def test_a_classifier_beside_two_backbones_is_named() -> None:
    """solo-learn trains a classifier on the features of a network with a momentum copy."""
    table = behind("backbone.", without_head(STATE)) | behind(
        "momentum_backbone.", without_head(STATE)
    )
    table |= {"projector.0.weight": torch.zeros(64, 64), "projector.2.weight": torch.zeros(8, 64)}
    identity = identified(table | {"classifier.weight": torch.zeros(5, 64)})
    assert (identity.prefix, identity.num_classes) == ("backbone.", None)
    assert identity.unexplained == ()
    (note,) = [note for note in identity.notes if "so there are no classes" in note]
    assert note.startswith("classifier.weight can take the same features")


def test_a_sparse_head_is_named(tmp_path: Path) -> None:
    for name in ("with_bias.pth", "without_bias.pth"):
        state = STATE | {"fc.weight": torch.eye(5, 64).to_sparse()}
        if name == "without_bias.pth":
            del state["fc.bias"]
        torch.save(state, tmp_path / name)
        identity = identify_checkpoint(read_checkpoint(tmp_path / name))
        assert (identity.num_classes, identity.unexplained) == (None, ())
        (note,) = [note for note in identity.notes if "so there are no classes" in note]
        assert ("fc.weight is sparse" in note) == (name == "with_bias.pth") and "sparse" in note


def test_a_block_that_is_never_called_lies_beside_the_network() -> None:
    """TRADES' wide networks, of many robust models, create a copy of the first stage."""
    net = models.build("wrn10_2", num_classes=5).eval()
    state = state_of(net, "wrn")
    copy = {
        name.replace("block1", "sub_block1"): torch.zeros_like(tensor)
        for name, tensor in state.items()
        if name.startswith("block1")
    }
    identity = identified(behind("module.", state | copy))
    assert len(identity.beside) == len(copy) and identity.unexplained == ()
    assert torch.equal(load_network(identity)(IMAGE), net(IMAGE))


@pytest.mark.parametrize("num_classes", [5, 64])
def test_matrices_of_paddle_are_transposed(num_classes: int) -> None:
    """With as many classes as features, the shape does not show it."""
    net = small_network(num_classes=num_classes)
    state = {
        name: tensor for name, tensor in state_of(net).items() if "num_batches_tracked" not in name
    }
    state["fc.weight"] = state["fc.weight"].T.contiguous()
    state = renamed(state, ("running_mean", "_mean"), ("running_var", "_variance"))
    assert torch.equal(load_network(identified(state))(IMAGE), net(IMAGE))


def test_a_teacher_of_another_depth_is_no_average() -> None:
    teacher = state_of(models.build("resnet14", num_classes=5, shortcut="B"))
    for tables in (
        {"state_dict": behind("student.", STATE) | behind("teacher.", teacher)},
        {"student": STATE, "teacher": teacher},
    ):
        identity = identify_checkpoint(checkpoint_of(**tables))
        (other,) = identity.further
        assert identity.spec["name"] == "resnet8"
        assert (other.name, other.is_average) == ("resnet14", False)
