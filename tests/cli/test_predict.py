"""`reslearn predict`: text, CSV and JSON, unreadable pictures, standard input, foreign weights."""

import csv
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import models
from reslearn.analysis import draw_heat_map, grad_cam
from reslearn.data import Images, Preprocess
from reslearn.interop import dialect_named, read_bundle, to_bytes, write_weights

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("cat", "dog", "owl\x1b[31m")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    network = models.build("resnet8", num_classes=3)
    pixels = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    content = to_bytes(
        network,
        spec=network.spec,
        classes=CLASSES,
        preprocess=Preprocess.fit(Images(pixels, torch.zeros(9, dtype=torch.int64))),
        metrics={},
        recipe_hash="0123456789ab",
    )
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    path.write_bytes(content)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}, photo.png")
    return folder


def test_the_forms_of_the_output_agree(bundle: Path, photos: Path, reslearn: Run) -> None:
    status, output, errors = reslearn("predict", bundle, photos, "--top", "2", "--json")
    assert (status, errors) == (0, "")
    records = [json.loads(line) for line in output.splitlines()]
    paths = sorted(str(path) for path in photos.iterdir())
    assert [record["picture"] for record in records] == paths
    for record in records:
        assert record["top"][0] == {
            "class": record["class"],
            "probability": record["probability"],
        }
        assert len(record["top"]) == 2
        assert record["probability"] >= record["top"][1]["probability"]

    status, output, _ = reslearn("predict", bundle, photos, "--top", "2", "--csv")
    heading, *rows = list(csv.reader(io.StringIO(output)))
    assert heading == ["picture", "class", "probability", "class_2", "probability_2"]
    assert status == 0
    for row, record in zip(rows, records, strict=True):
        assert row[0] == record["picture"]
        assert row[3].startswith(record["top"][1]["class"][:3])
        assert float(row[2]) == pytest.approx(record["probability"], abs=1e-6)

    status, output, _ = reslearn("predict", bundle, photos, "--top", "9")
    lines = output.splitlines()
    assert (status, len(lines)) == (0, 5)
    for line, record in zip(lines, records, strict=True):
        assert line.startswith(f"{100 * record['probability']:5.1f} %  {record['class'][:3]}")
        assert line.endswith(record["picture"])
        assert line.count("%") == 3
        assert "\x1b" not in line


def test_unreadable_pictures_are_reported_and_left_out(
    bundle: Path, photos: Path, reslearn: Run
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    status, output, errors = reslearn("predict", bundle, photos, "missing.jpg", "--csv")
    assert (status, len(output.splitlines())) == (1, 6)
    lines = errors.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"reslearn: {photos / 'broken.jpg'} cannot be read (")
    assert lines[1].startswith("reslearn: missing.jpg cannot be read (there is no such file)")
    assert lines[2] == "2 of 7 could not be read"
    status, output, _ = reslearn("predict", bundle, "missing.jpg", photos, "--json")
    records = [json.loads(line) for line in output.splitlines()]
    assert (status, len(records)) == (1, 7)
    assert set(records[0]) == {"picture", "error"}


def test_standard_input(
    bundle: Path, photos: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(photos.iterdir())[0]

    def predict(content: bytes) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        status, output, _ = reslearn("predict", bundle, "-")
        return status, output

    status, of_picture = predict(path.read_bytes())
    assert (status, of_picture.endswith("-\n")) == (0, True)
    status, of_names = predict(f"{path}\n{photos}\n".encode())
    assert (status, len(of_names.splitlines())) == (0, 6)
    assert of_names.splitlines()[0].split("  ")[:2] == of_picture.split("  ")[:2]
    monkeypatch.setattr("sys.stdin", None)  # as after `<&-`
    status, _, errors = reslearn("predict", bundle, "-")
    assert (status, errors.count("\n")) == (2, 1)
    assert "standard input, which is not available" in errors


def test_weights_of_other_projects(photos: Path, tmp_path: Path, reslearn: Run) -> None:
    torch.manual_seed(4)
    network = models.build("resnet18", num_classes=3, shortcut="B").eval()
    weights, names = tmp_path / "resnet18.pth", tmp_path / "names.txt"
    write_weights(network, weights, dialect_named("torchvision"))
    names.write_text("\n".join(CLASSES))
    path = sorted(photos.iterdir())[0]
    arguments = ("predict", weights, path, "--size", "32", "--top", "3", "--json")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as on the command line
        status, output, errors = reslearn(*arguments, "--class-names", names)
    assert status == 0
    assert errors.startswith(f"reslearn: warning: {weights}: its preprocessing is not recorded.")
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in errors
    image = Image.open(path).resize((32, 32), Image.Resampling.BILINEAR, box=(7.1, 2.1, 32.9, 27.9))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    x = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        expected = network(x[None]).softmax(1)[0]
    actual = {entry["class"]: entry["probability"] for entry in json.loads(output)["top"]}
    assert [actual[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=0.05)

    status, with_mean, errors = reslearn(*arguments, "--mean", "0.1", "--std", "0.9,0.9,0.9")
    top = json.loads(with_mean)["top"]
    assert (status, errors) == (0, "")
    assert {entry["class"] for entry in top} == {"0", "1", "2"}
    for options, message in (
        (("--mean", "123.7"), "--mean 123.7: the values must be of pixels from 0 to 1"),
        (("--std", "0.5,0.5"), "--std has 2 values, and the images have 3 channels"),
        (("--std", "0"), "--std 0.0: the values"),
        (("--mean", "gray"), "--mean gray: numbers with commas"),
        (("--shorter", "31"), "--size 32, --shorter 31"),
        (("--class-names", path), "cannot be read"),
        (("--csv",), "--json and --csv: choose one"),
    ):
        status, _, errors = reslearn(*arguments, *options)
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors


def test_heat_maps(bundle: Path, photos: Path, tmp_path: Path, reslearn: Run) -> None:
    (photos / "more").mkdir()
    (photos / "more" / "0, photo.jpg").write_bytes((photos / "0, photo.png").read_bytes())
    (photos / "broken.png").write_bytes(b"no picture")
    folder = tmp_path / "heat" / "maps"
    status, output, _ = reslearn("predict", bundle, photos, "--heat-map", folder, "--json")
    assert status == 1
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0, photo-2.png", *(f"{number}, photo.png" for number in range(5))]
    labels = {json.loads(line)["picture"]: json.loads(line) for line in output.splitlines()}
    opened = read_bundle(bundle)
    name = "3, photo.png"
    pixels = opened.preprocess.read(photos / name).copy()
    x = opened.preprocess(torch.from_numpy(pixels)[None])
    label = opened.classes.index(labels[str(photos / name)]["class"])
    heat = grad_cam(opened.network, x, torch.tensor([label]))[0]
    expected = draw_heat_map(torch.from_numpy(pixels), heat)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / name)), expected)
    status, _, errors = reslearn("predict", bundle, photos / name, "--heat-map", photos / name)
    assert (status, errors.count("\n")) == (2, 1)
    assert "it is a file, and a folder is needed" in errors


def test_weights_of_other_projects_are_evaluated(
    make_pictures: Callable[..., Path], tmp_path: Path, reslearn: Run
) -> None:
    torch.manual_seed(4)
    network = models.build("resnet18", num_classes=3, shortcut="B").eval()
    weights, data = tmp_path / "resnet18.pth", tmp_path / "data"
    write_weights(network, weights, dialect_named("torchvision"))
    make_pictures(data, train=2, test=2)
    options = ("--size", "32", "--shorter", "36", "--mean", "0.4", "--std", "0.3", "--json")
    status, output, _ = reslearn("evaluate", weights, data, *options)
    assert status == 0
    record = json.loads(output)
    status, output, _ = reslearn("predict", weights, data / "test", *options)
    assert status == 0
    lines = [json.loads(line) for line in output.splitlines()]
    classes = sorted(path.name for path in (data / "test").iterdir())
    labels = [Path(line["picture"]).parent.name for line in lines]
    predicted = [classes[int(line["class"])] for line in lines]
    num_wrong = sum(label != name for label, name in zip(labels, predicted, strict=True))
    assert record["num_images"] == len(lines) == 6
    assert record["top1_error_pct"] == pytest.approx(100 * num_wrong / 6)
    status, _, errors = reslearn("evaluate", weights, data, "--mean", "9")
    assert (status, errors.count("\n")) == (2, 1)


def test_the_preprocessing_of_a_file_is_asked_for_where_nothing_tells_it(
    bundle: Path, photos: Path, tmp_path: Path, reslearn: Run
) -> None:
    weights = tmp_path / "resnet20.pth"
    network = models.build("resnet20", num_classes=10)
    torch.save(network.state_dict(), weights)
    status, _, errors = reslearn("predict", weights, photos)
    assert status == 2
    assert "its mean and standard deviation are not known" in errors
    assert reslearn("predict", weights, photos, "--mean", "0.5", "--std", "0.25")[0] == 0
    status, _, errors = reslearn("predict", bundle, photos, "--mean", "0.5")
    assert status == 2
    assert "leave out --mean" in errors
