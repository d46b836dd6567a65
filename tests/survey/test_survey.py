"""A survey of whole folders: findings by name and count, their order, and the advice."""

import json
import os
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import ThreadPoolExecutor

import pytest
from PIL import Image

from reslearn.data.errors import DataError
from reslearn.survey import file_rules, run, survey_folder, survey_json
from reslearn.survey.examine import Flag

SPLITS = {
    "train/cat": 24,
    "train/dog": 24,
    "validation/cat": 10,
    "validation/dog": 10,
    "test/cat": 12,
    "test/dog": 12,
}


def counts_of(folder):
    return {finding.name: finding.count for finding in survey_folder(folder).findings}


def test_a_good_folder_has_no_findings(make_folder) -> None:
    survey = survey_folder(make_folder(SPLITS))
    assert survey.findings == ()
    assert survey.facts.counts["test"] == {"cat": 12, "dog": 12}
    assert not survey.facts.is_drawn


def test_copies_across_splits_and_classes_are_counted(make_folder, photo) -> None:
    folder = make_folder(SPLITS)
    shutil.copy(folder / "train/cat/000.jpg", folder / "test/cat/exact.jpg")
    shutil.copy(folder / "train/cat/001.jpg", folder / "validation/dog/conflict.jpg")
    with Image.open(folder / "train/dog/003.jpg") as image:
        image.resize((128, 96)).save(folder / "test/dog/near.png")
    survey = survey_folder(folder)
    findings = {finding.name: finding for finding in survey.findings}
    assert list(findings) == [
        "leak_test_train",
        "leak_validation_train",
        "label_conflict",
        "exact_copies",
        "near_copies",
    ]
    leak = findings["leak_test_train"]
    assert (leak.severity, leak.count) == ("error", 2)
    assert leak.text.startswith(
        "2 test images of 26 (7.7 %) have a copy (1 exact, 1 near) in train"
    )
    assert findings["label_conflict"].count == 2
    names = [survey.facts.listing.name(row) for row in findings["label_conflict"].examples[0]]
    assert sorted(names) == ["train/cat/001.jpg", "validation/dog/conflict.jpg"]
    assert (findings["exact_copies"].count, findings["near_copies"].count) == (2, 2)


def test_near_copies_alone_are_a_warning(make_folder) -> None:
    folder = make_folder(SPLITS)
    with Image.open(folder / "train/dog/003.jpg") as image:
        image.resize((128, 96)).save(folder / "test/dog/near.jpg")
    finding = survey_folder(folder).findings[0]
    assert (finding.name, finding.severity, finding.count) == ("leak_test_train", "warning", 1)


def test_missing_and_small_classes_are_named(make_folder) -> None:
    folder = make_folder(SPLITS | {"train/owl": 2})
    survey = survey_folder(folder)
    findings = {finding.name: finding for finding in survey.findings}
    texts = [finding.text for finding in survey.findings if finding.name == "missing_class"]
    assert texts == [
        "1 class without images in validation: owl",
        "1 class without images in test: owl",
    ]
    assert findings["imbalance"].text == (
        "Class cat has 12.0 times the images of class owl in train (24 and 2)"
    )
    assert findings["small_class"].text.endswith("in train: owl (2)")


def test_lost_files_are_counted(make_folder) -> None:
    folder = make_folder({"cat": 30, "dog": 30, "owl": 20})
    for index in range(30):
        (folder / "cat" / f"{index}.raw2").write_bytes(b"x")
    (folder / "cat" / "more.raw2").write_bytes(b"x")
    (folder / "dog" / "notes.txt").write_text("x")
    (folder / "dog" / "000.jpg").write_bytes(b"")
    path = folder / "dog" / "001.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    survey = survey_folder(folder)
    findings = {finding.name: finding for finding in survey.findings}
    assert findings["class_left_out"].text == (
        "Class cat has 30 readable images, and 31 files of it are left out "
        "because of the suffix: 31 .raw2"
    )
    assert (findings["left_out"].severity, findings["left_out"].count) == ("note", 1)
    assert (findings["unreadable"].severity, findings["unreadable"].count) == ("error", 2)
    assert survey.facts.unreadable_of_class == {"dog": 2}
    assert survey.facts.class_counts() == {"cat": 30, "dog": 28, "owl": 20}


def test_a_class_that_its_form_gives_away_is_found(make_folder) -> None:
    folder = make_folder({"cat": 40, "dog": 40})
    assert "form_tells_class" not in counts_of(folder)
    for path in sorted((folder / "dog").iterdir()):
        with Image.open(path) as image:
            image.convert("L").save(path)
    assert "form_tells_class" in counts_of(folder)


def test_drawn_splits_are_said_and_exact_copies_stay_on_one_side(make_folder) -> None:
    folder = make_folder({"cat": 40, "dog": 40})
    for index in range(20):
        shutil.copy(folder / "cat" / f"{index:03d}.jpg", folder / "cat" / f"copy{index}.jpg")
    survey = survey_folder(folder)
    assert survey.facts.is_drawn
    assert survey.facts.copies.num_exact == 20
    assert survey.facts.copies.leaks == ()
    assert any(advice.topic == "split" and advice.value == "draw" for advice in survey.advice)


@pytest.mark.parametrize(
    ("size", "input_size", "stem"),
    [((20, 30), "32", "cifar"), ((64, 80), "64", "cifar"), ((100, 95), "64", "cifar"),
     ((96, 128), "96", "imagenet"), ((500, 400), "224", "imagenet")],
)  # fmt: skip
def test_advice_on_size_and_stem_follows_the_median_side(
    tmp_path, photo, size, input_size, stem
) -> None:
    for seed in range(6):
        place = tmp_path / f"class{seed % 2}"
        place.mkdir(exist_ok=True)
        photo(seed, size).save(place / f"{seed}.jpg")
    advice = {advice.topic: advice.value for advice in survey_folder(tmp_path).advice}
    assert (advice["input size"], advice["stem"]) == (input_size, stem)


def test_long_images_lose_the_area_outside_the_square(tmp_path, photo) -> None:
    for seed in range(8):
        place = tmp_path / f"class{seed % 2}"
        place.mkdir(exist_ok=True)
        photo(seed, (200, 100) if seed < 2 else (120, 120)).save(place / f"{seed}.jpg")
    survey = survey_folder(tmp_path)
    shapes = {shape.name: (shape.num_images, shape.lost_pct) for shape in survey.facts.shapes}
    assert shapes == {"square": (6, 0.0), "up to 2:1": (2, 50.0)}
    assert {finding.name: finding.count for finding in survey.findings}["long_images"] == 2


def test_a_table_of_labels_is_surveyed(make_folder) -> None:
    folder = make_folder({"images": 40})
    lines = [f"images/{index:03d}.jpg,{'cat' if index % 2 else 'dog'}" for index in range(40)]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(lines))
    for source in (folder, folder / "labels.csv"):
        assert survey_folder(source).facts.class_counts() == {"cat": 20, "dog": 20}


def test_a_folder_that_training_refuses_is_surveyed_all_the_same(make_folder) -> None:
    survey = survey_folder(make_folder({"train/cat": 20, "train/dog": 20, "test/owl": 12}))
    first = survey.findings[0]
    assert (first.severity, first.name) == ("error", "layout")
    assert "'owl'" in first.line


def test_an_empty_folder_is_one_line(tmp_path) -> None:
    with pytest.raises(DataError, match="has no pictures"):
        survey_folder(tmp_path)


def test_json_has_only_json_values_and_relative_paths(make_folder) -> None:
    folder = make_folder(SPLITS)
    shutil.copy(folder / "train/cat/000.jpg", folder / "test/cat/exact.jpg")
    record = json.loads(json.dumps(survey_json(survey_folder(folder)), allow_nan=False))
    assert record["copies"]["leaks"][0]["num_exact"] == 1
    assert record["findings"][0]["examples"] == [["test/cat/exact.jpg", "train/cat/000.jpg"]] or (
        record["findings"][0]["examples"] == [["train/cat/000.jpg", "test/cat/exact.jpg"]]
    )
    assert record["counts"]["train"] == {"cat": 24, "dog": 24}


def test_a_pool_gives_the_same_facts_in_the_same_order(make_folder, monkeypatch) -> None:
    folder = make_folder({"cat": 40, "dog": 40})
    (folder / "dog" / "010.jpg").write_bytes(b"")
    alone = survey_json(survey_folder(folder))
    monkeypatch.setattr(run, "MIN_IMAGES_FOR_POOL", 1)
    monkeypatch.setattr(run, "_FILES_PER_TASK", 7)
    pooled = survey_json(survey_folder(folder, start_pool=lambda: ThreadPoolExecutor(3)))
    assert {**pooled, "seconds": 0} == {**alone, "seconds": 0}


def test_a_worker_that_dies_is_one_line(make_folder, monkeypatch) -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, *arguments: object, **options: object) -> Future[object]:
            future: Future[object] = Future()
            future.set_exception(BrokenProcessPool("a process died"))
            return future

    folder = make_folder({"cat": 4, "dog": 4})
    monkeypatch.setattr(run, "MIN_IMAGES_FOR_POOL", 1)
    with pytest.raises(DataError, match=r"ended while it read .*000\.jpg or one of the next"):
        survey_folder(folder, start_pool=Broken)


def test_nothing_is_left_in_the_temporary_folder(make_folder, tmp_path, monkeypatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    survey_folder(make_folder({"cat": 4, "dog": 4}))
    assert os.listdir(temporary) == []


def test_every_odd_property_has_a_finding(make_folder, photo) -> None:
    folder = make_folder(SPLITS)
    place = folder / "train" / "cat"
    photo(901).convert("CMYK").save(place / "print.jpg")
    photo(902).save(place / "inside.jpg", format="png")
    Image.new("RGB", (50, 50), "red").save(place / "flat.png")
    photo(903).save(place / "film.gif", save_all=True, append_images=[photo(904)])
    findings = {finding.name: finding for finding in survey_folder(folder).findings}
    assert list(findings) == ["flat", "animated", "cmyk", "wrong_suffix"]
    assert findings["cmyk"].line == (
        "1 image has CMYK colors. Reading converts them to RGB without a profile."
    )


def test_every_flag_has_a_rule() -> None:
    assert set(file_rules._ODD) == set(Flag) - {Flag.UNREADABLE}
