"""The page of a survey: copies side by side, hostile names, and a bound on its size."""

import re
import shutil

import pytest

from reslearn.report import render_html
from reslearn.survey import page, survey_folder, survey_page


def html_of(folder):
    return render_html(survey_page(survey_folder(folder)))


def test_copies_examples_and_unreadable_files_are_shown(make_folder) -> None:
    folder = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 4, "test/dog": 4})
    shutil.copy(folder / "train/cat/000.jpg", folder / "test/dog/copy.jpg")
    (folder / "train/dog/bad.jpg").write_bytes(b"")
    html = html_of(folder)
    group = html.index("2 exact copies in different classes: cat, dog and in different splits")
    strip = html[group : html.index("</ul>", group)]
    assert len(re.findall('<img src="data:image/jpeg', strip)) == 2
    assert "test/dog/copy.jpg" in strip and "train/cat/000.jpg" in strip
    assert "train/dog/bad.jpg" in html and "the file is empty" in html
    assert "Examples of each class" in html


def test_names_are_escaped(make_folder) -> None:
    folder = make_folder({"a<script>alert(1)<": 3, "b\x1b[31m": 3})
    (folder / "b\x1b[31m" / "000.jpg").rename(folder / "b\x1b[31m" / "<img src=x onerror=y>.jpg")
    html = html_of(folder)
    assert "<script>alert" not in html and "<img src=x" not in html and "\x1b" not in html
    assert "a&lt;script&gt;" in html


def test_a_name_that_is_not_text_is_shown(make_folder) -> None:
    folder = make_folder({"cat": 3, "dog": 3})
    shutil.copy(folder / "cat/000.jpg", bytes(folder) + b"/cat/\xff\xfe.jpg")
    html_of(folder).encode()


def test_thumbnails_are_bounded_in_bytes(make_folder, monkeypatch) -> None:
    folder = make_folder({"cat": 20, "dog": 20})
    monkeypatch.setattr(page, "MAX_THUMBNAIL_BYTES", 1)
    assert len(re.findall("<img ", html_of(folder))) == 1


@pytest.mark.parametrize("num_classes", [300])
def test_many_classes_stay_readable(make_folder, num_classes: int) -> None:
    folder = make_folder({f"class{index:03d}": 1 for index in range(num_classes)})
    html = html_of(folder)
    assert "and 100 more" in html
    assert len(html) < 5_000_000
