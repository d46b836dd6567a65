"""The paper's test protocols against loops by hand over pictures, views and networks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from reslearn import data, models
from reslearn.data import Files, Preprocess
from reslearn.evaluate import evaluate, metrics_of_scores, scores, views

Make = Callable[..., Path]
SIZE, TEN_CROP, SCALES = (
    14,
    16,
    (14, 16, 24, 30, 40),
)  # a sixteenth of the paper's 224, 256, {224, 256, 384, 480, 640}


@pytest.fixture(scope="module")
def files(make_pictures: Make, tmp_path_factory: pytest.TempPathFactory) -> Files:
    test = data.load(
        make_pictures(tmp_path_factory.mktemp("pictures"), train=2, test=4),
        size_px=SIZE,
        stream=True,
    ).test
    assert isinstance(test, Files)
    return test


@pytest.fixture(scope="module")
def preprocess(files: Files) -> Preprocess:
    return Preprocess.fit(files, shorter_px=TEN_CROP)


def network(seed: int = 0, name: str = "resnet8") -> models.Network:
    torch.manual_seed(seed)
    net = models.build(name, num_classes=7)
    for module in net.modules():  # statistics other than 0 and 1, as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def upright(files: Files) -> Iterator[Image.Image]:
    for index in range(len(files)):
        with Image.open(files.path(index)) as image:
            yield ImageOps.exif_transpose(image).convert("RGB")


def softmax(net: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the scores [K] of one view x [H, W, 3]."""
    with torch.no_grad():
        logits = net(torch.from_numpy(x).float().permute(2, 0, 1)[None]).double().numpy()[0]
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


def ten_crops_by_hand(net: torch.nn.Module, files: Files, preprocess: Preprocess) -> np.ndarray:
    mean, scale = preprocess.mean.numpy(), preprocess.scale.numpy()
    averages = []
    for image in upright(files):
        step = min(image.size) / TEN_CROP  # pixels of the file per pixel of the resized picture
        height, width = (side / step for side in (image.height, image.width))
        bottom, right = int(height + 1e-9) - SIZE, int(width + 1e-9) - SIZE
        places = [
            (0, 0),
            (0, right),
            (bottom, 0),
            (bottom, right),
            ((height - SIZE) / 2, (width - SIZE) / 2),
        ]
        each = []
        for top, left in places:
            box = (
                left * step,
                top * step,
                min((left + SIZE) * step, image.width),
                min((top + SIZE) * step, image.height),
            )
            crop = np.asarray(
                image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
            ).astype(np.float32)
            each += [softmax(net, (view - mean) / scale) for view in (crop, crop[:, ::-1])]
        averages.append(np.mean(each, axis=0))
    return np.array(averages)


def scales_by_hand(net: torch.nn.Module, files: Files, preprocess: Preprocess) -> np.ndarray:
    mean, scale = preprocess.mean.numpy().mean(axis=(0, 1)), preprocess.scale.numpy()
    averages = []
    for image in upright(files):
        each = []
        for shorter in SCALES:
            size = (
                round(image.width * shorter / min(image.size)),
                round(image.height * shorter / min(image.size)),
            )
            assert min(size) == shorter
            whole = (
                np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(np.float32) - mean
            ) / scale
            each += [softmax(net, view) for view in (whole, whole[:, ::-1].copy())]
        averages.append(np.mean(each, axis=0))
    return np.array(averages)


@pytest.mark.parametrize("batch_size", [1, 25, 500])
@pytest.mark.parametrize(
    ("protocol", "by_hand"), [("ten-crop", ten_crops_by_hand), ("multi-scale", scales_by_hand)]
)
def test_scores_equal_a_loop_by_hand(
    files: Files,
    preprocess: Preprocess,
    protocol: str,
    by_hand: Callable[..., np.ndarray],
    batch_size: int,
) -> None:
    net = network()
    averages = scores(
        net, views(protocol, files, preprocess, batch_size=batch_size), num_images=len(files)
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(averages, by_hand(net, files, preprocess), rtol=1e-4, atol=1e-6)
    assert (
        np.ptp(averages.numpy(), axis=0).max() > 1e-3
    )  # scores differ between pictures, so their order is tested


@pytest.mark.parametrize(
    ("name", "shortcut"),
    [("resnet18", "A"), ("resnet50", "B"), ("plain18", None), ("resnet20", "C")],
)
def test_every_family_takes_whole_pictures(
    files: Files, preprocess: Preprocess, name: str, shortcut: str | None
) -> None:
    net = models.build(name, num_classes=7, **({"shortcut": shortcut} if shortcut else {}))
    averages = scores(net, views("multi-scale", files.subset(0, 2), preprocess), num_images=2)
    torch.testing.assert_close(averages.sum(1), torch.ones(2, dtype=torch.float64))
    assert net.training  # the mode is restored


def test_the_single_view_equals_evaluate(files: Files, preprocess: Preprocess) -> None:
    net = network()
    metrics = evaluate(net, data.eval_batches(files, preprocess, batch_size=5))
    averages = scores(net, views("single", files, preprocess, batch_size=5), num_images=len(files))
    metrics_of_views = metrics_of_scores(averages, files.labels)
    assert metrics_of_views.loss == pytest.approx(metrics.loss, rel=1e-5)
    assert (
        metrics_of_views.top1_error_pct,
        metrics_of_views.top5_error_pct,
        metrics_of_views.num_images,
    ) == (
        metrics.top1_error_pct,
        metrics.top5_error_pct,
        12,
    )


def test_errors_of_scores_by_hand() -> None:
    averages = torch.zeros(3, 7, dtype=torch.float64)
    averages[0, 2], averages[0, 3] = 0.75, 0.25  # right
    averages[1] = torch.tensor(
        [0.3, 0.2, 0.15, 0.12, 0.11, 0.08, 0.04]
    )  # rank 6 of 7: a top-5 error
    averages[2] = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0])  # rank 2 to 4
    metrics = metrics_of_scores(averages, torch.tensor([2, 5, 2]))
    assert metrics.top1_error_pct == pytest.approx(200 / 3)
    assert metrics.top5_error_pct == pytest.approx(100 / 3)
    assert metrics.loss == pytest.approx(-np.log([0.75, 0.08, 0.2]).mean(), rel=1e-5)
    assert np.isfinite(metrics_of_scores(averages, torch.tensor([0, 0, 6])).loss)  # a score of 0


def test_images_of_one_size_allow_only_the_single_view(preprocess: Preprocess) -> None:
    digits = data.load("digits").test
    for protocol in ("ten-crop", "multi-scale"):
        with pytest.raises(
            ValueError,
            match=rf"^{protocol} cuts .* needs a folder of images; .*single view \(Sec\. 4\.2\)$",
        ):
            views(protocol, digits, preprocess)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"protocol 'five-crop': allowed are single, ten-crop, multi-scale"
    ):
        views("five-crop", digits, preprocess)  # type: ignore[arg-type]
