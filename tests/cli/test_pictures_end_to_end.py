"""Folders of pictures from the command line: train, evaluate by each protocol, refuse errors."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
Make = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]

# The recipe for any folder, with resnet8 and crops of 16 pixels, takes seconds.
TINY = [
    "--recipe",
    "imagenet-smoke",
    "--model",
    "resnet8",
    "--threads",
    "1",
    "--workers",
    "0",
    "--batch-size",
    "6",
    "--set",
    "data.size_px=16",
    "--set",
    "schedule.duration=4 steps",
    "--set",
    "evaluation.every=2 steps",
    "--set",
    "evaluation.recompute_images=12",
]


@pytest.mark.filterwarnings("default:.*are left out")
def test_a_folder_is_trained_on_and_evaluated_by_all_protocols(
    make_pictures: Make, tmp_path: Path, reslearn: Run
) -> None:
    pictures, out = (
        make_pictures(tmp_path / "pictures", train=8, validation=3, test=4),
        tmp_path / "run",
    )
    truncated = pictures / "train" / "green" / "99.jpg"
    truncated.write_bytes((pictures / "train" / "green" / "0.jpg").read_bytes()[:-300])
    status, trained, errors = reslearn("train", pictures, *TINY, "--out", out, "--json")
    assert status == 0
    assert f"and are left out; the first is {truncated} (image file is truncated" in errors
    result = json.loads(trained)
    assert result["skipped_images"] == 1
    assert 0 <= result["validation_top1_error_pct"] <= 100
    metrics = {}
    for protocol in ("single", "ten-crop", "multi-scale"):
        status, output, _ = reslearn("evaluate", out, "--protocol", protocol, "--json")
        assert status == 0
        metrics[protocol] = json.loads(output)
        assert (
            metrics[protocol]["protocol"],
            metrics[protocol]["networks"],
            metrics[protocol]["num_images"],
        ) == (protocol, 1, 12)
    assert metrics["single"]["top1_error_pct"] == result["test_top1_error_pct"]
    for values in metrics.values():
        low, high = values["top1_error_interval_pct"]
        assert 0 <= low <= values["top1_error_pct"] <= high <= 100
        assert high - low > 20, "twelve images give a wide interval"
        assert values["top5_error_pct"] is values["top5_error_interval_pct"] is None, (
            "three classes"
        )
    assert len({values["loss"] for values in metrics.values()}) == 3

    bundle = out / "model.safetensors"
    status, output, _ = reslearn("evaluate", out, bundle, pictures, "--protocol", "ten-crop")
    assert status == 0
    low, high = metrics["ten-crop"]["top1_error_interval_pct"]
    assert output.startswith(f"test accuracy {100 - metrics['ten-crop']['top1_error_pct']:.2f} % [")
    assert (
        f", error {metrics['ten-crop']['top1_error_pct']:.2f} % [{low:.2f}, {high:.2f}], " in output
    )
    assert "(ten-crop, 2 networks)" in output
    status, output, _ = reslearn("evaluate", bundle, pictures, "--images", "validation", "--json")
    assert (status, json.loads(output)["top1_error_pct"]) == (
        0,
        result["validation_top1_error_pct"],
    )


def test_wrong_use_is_one_line(make_pictures: Make, tmp_path: Path, reslearn: Run) -> None:
    pictures, out = make_pictures(tmp_path / "pictures", train=4, test=1), tmp_path / "run"
    assert (
        reslearn(
            "train",
            pictures,
            *TINY,
            "--out",
            out,
            "--set",
            "schedule.kind=constant",
            "--set",
            "schedule.duration=1 step",
        )[0]
        == 0
    )
    for arguments, message in (
        ((out, "--protocol", "five-crop"), "'single', 'ten-crop', 'multi-scale'"),
        (
            (out, tmp_path / "nothing", pictures),
            f"{tmp_path / 'nothing'} is not a run folder or bundle; the data",
        ),
        ((out / "model.safetensors",), "is a bundle: name the data too"),
        ((out, "--images", "validation"), "has no validation images"),
        (
            (out, make_pictures(tmp_path / "others", classes=("cat", "dog"), train=1, test=1)),
            "has 3 outputs, and ",
        ),
    ):
        status, _, errors = reslearn("evaluate", *arguments)
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors
    status, _, errors = reslearn(
        "train",
        "digits",
        "--recipe",
        "digits",
        "--out",
        tmp_path / "digits",
        "--model",
        "resnet8",
        "--set",
        "schedule.kind=constant",
        "--epochs",
        "0.02",
    )
    assert status == 0
    status, _, errors = reslearn("evaluate", tmp_path / "digits", "--protocol", "multi-scale")
    assert status == 2
    message = "multi-scale cuts views out of pictures larger than the network sees"
    assert f"{message}: it needs a folder of images" in errors


def test_clothing(tmp_path: Path, reslearn: Run) -> None:
    """Photos from phones: a few of each of three kinds."""
    if not CLOTHING.is_dir():
        pytest.skip(f"no folder {CLOTHING}")
    for part in ("train", "validation", "test"):
        for kind in ("hat", "shoes", "t-shirt"):
            (tmp_path / "photos" / part / kind).mkdir(parents=True)
            for path in sorted((CLOTHING / part / kind).iterdir())[:8]:
                (tmp_path / "photos" / part / kind / path.name).symlink_to(path)
    out = tmp_path / "run"
    status, output, _ = reslearn(
        "train", tmp_path / "photos", *TINY, "--set", "data.size_px=32", "--out", out, "--json"
    )
    assert (status, json.loads(output)["steps"]) == (0, 4)
    status, output, _ = reslearn("evaluate", out, "--protocol", "multi-scale", "--json")
    assert (status, json.loads(output)["num_images"]) == (0, 24)
