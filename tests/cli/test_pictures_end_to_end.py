"""People's own pictures, and ImageNet's way with them, from the command line: train, evaluate by each protocol, what is wrong told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
Make = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]

# The recipe for any folder, with resnet8 and crops of 16 px: seconds.
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


def test_from_folder_to_all_three_protocols(
    make_pictures: Make, tmp_path: Path, reslearn: Run
) -> None:
    pictures, out = (
        make_pictures(tmp_path / "pictures", train=8, validation=3, test=4),
        tmp_path / "run",
    )
    cut = pictures / "train" / "green" / "99.jpg"
    cut.write_bytes((pictures / "train" / "green" / "0.jpg").read_bytes()[:-300])
    status, _, told = reslearn("train", pictures, *TINY, "--out", out)
    assert status == 2
    assert told.splitlines()[-1].startswith(f"reslearn: {cut} cannot be read (")
    assert (
        not out.exists()
    )  # so soon that nothing was begun: the mean needs every picture of a small folder
    cut.unlink()

    status, trained, _ = reslearn("train", pictures, *TINY, "--out", out, "--json")
    assert status == 0
    result = json.loads(trained)
    assert 0 <= result["validation_top1_error_pct"] <= 100
    measured = {}
    for protocol in ("single", "ten-crop", "multi-scale"):
        status, told, _ = reslearn("evaluate", out, "--protocol", protocol, "--json")
        assert status == 0
        measured[protocol] = json.loads(told)
        assert (
            measured[protocol]["protocol"],
            measured[protocol]["networks"],
            measured[protocol]["num_images"],
        ) == (protocol, 1, 12)
    assert measured["single"]["top1_error_pct"] == result["test_top1_error_pct"]
    for values in measured.values():
        low, high = values["top1_error_interval_pct"]
        assert 0 <= low <= values["top1_error_pct"] <= high <= 100
        assert high - low > 20, "twelve images tell little"
        assert values["top5_error_pct"] is values["top5_error_interval_pct"] is None, (
            "three classes"
        )
    assert len({values["loss"] for values in measured.values()}) == 3

    bundle = out / "model.safetensors"
    status, told, _ = reslearn("evaluate", out, bundle, pictures, "--protocol", "ten-crop")
    assert status == 0
    low, high = measured["ten-crop"]["top1_error_interval_pct"]
    assert told.startswith(
        f"test error {measured['ten-crop']['top1_error_pct']:.2f} % [{low:.2f}, {high:.2f}], "
    )
    assert "(ten-crop, 2 networks)" in told
    status, told, _ = reslearn("evaluate", bundle, pictures, "--images", "validation", "--json")
    assert (status, json.loads(told)["top1_error_pct"]) == (0, result["validation_top1_error_pct"])


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
    for arguments, tells in (
        ((out, "--protocol", "five-crop"), "'single', 'ten-crop', 'multi-scale'"),
        (
            (out, tmp_path / "nothing", pictures),
            f"{tmp_path / 'nothing'} is not a run folder or bundle; the data",
        ),
        ((out / "model.safetensors",), "is a bundle: name the data too"),
        ((out, "--images", "validation"), "has no validation images"),
        (
            (out, make_pictures(tmp_path / "others", classes=("cat", "dog"), train=1, test=1)),
            "has other classes",
        ),
    ):
        status, _, told = reslearn("evaluate", *arguments)
        assert (status, told.count("\n")) == (2, 1)
        assert tells in told
    status, _, told = reslearn(
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
    status, _, told = reslearn("evaluate", tmp_path / "digits", "--protocol", "multi-scale")
    assert status == 2
    assert (
        "multi-scale cuts views out of pictures larger than the network sees: it needs a folder of images"
        in told
    )


def test_clothing(tmp_path: Path, reslearn: Run) -> None:
    """Photos from phones: a few of each of three kinds, as they are."""
    if not CLOTHING.is_dir():
        pytest.skip(f"no folder {CLOTHING}")
    for part in ("train", "validation", "test"):
        for kind in ("hat", "shoes", "t-shirt"):
            (tmp_path / "photos" / part / kind).mkdir(parents=True)
            for path in sorted((CLOTHING / part / kind).iterdir())[:8]:
                (tmp_path / "photos" / part / kind / path.name).symlink_to(path)
    out = tmp_path / "run"
    status, told, _ = reslearn(
        "train", tmp_path / "photos", *TINY, "--set", "data.size_px=32", "--out", out, "--json"
    )
    assert (status, json.loads(told)["steps"]) == (0, 4)
    status, told, _ = reslearn("evaluate", out, "--protocol", "multi-scale", "--json")
    assert (status, json.loads(told)["num_images"]) == (0, 24)
