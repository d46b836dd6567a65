"""A survey as one HTML page: findings, advice, tables, and thumbnails of copies and odd files.

The number of thumbnails is bounded by their bytes, so the page stays below 5 MB for any folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from reslearn.progress import progress_bar
from reslearn.report import Gallery, Page, Picture, PictureGroup, Section, Table, thumbnail
from reslearn.report.content import Item
from reslearn.report.gallery import THUMBNAIL_PX
from reslearn.survey import tables
from reslearn.survey.copies import CopyGroup
from reslearn.survey.facts import FolderFacts
from reslearn.survey.finding import counted
from reslearn.survey.run import Survey
from reslearn.survey.text import headline, verdict
from reslearn.terminal import printable_line

MAX_THUMBNAIL_BYTES = 3_000_000  # 4 MB as text
_MAX_ROWS = 200
_MAX_CLASSES_SHOWN = 100
_MAX_GROUPS_SHOWN = 60
_PICTURES_PER_GROUP = 4
_ODD_SHOWN = 6
_LONGEST_NAME = 40
_SYMBOLS = {"error": "✗ error", "warning": "! warning", "note": "· note"}


def survey_page(survey: Survey) -> Page:
    """Return the page of a survey. It reads the pictures that it shows once more."""
    facts = survey.facts
    name = printable_line(facts.folder.resolve().name)
    with progress_bar("drawing thumbnails", None, after_seconds=2.0) as advance:
        thumbnails = _Thumbnails(facts, MAX_THUMBNAIL_BYTES, advance)
        copies = list(_copy_items(facts, thumbnails))
        odd = list(_odd_items(survey, thumbnails))
        examples = list(_example_items(facts, thumbnails))
    sections = [
        Section("Findings", items=[_finding_table(survey)]),
        Section("Advice", "\n\n".join(advice.text for advice in survey.advice)),
        Section("Unreadable files and files left out", items=_lost_items(facts)),
        Section("Copies", _copies_text(facts), copies),
        Section("Odd images", items=odd),
        Section("Classes and splits", items=[tables.class_table(facts, _MAX_ROWS), *examples]),
        Section(
            "Sizes and forms",
            items=[tables.size_table(facts), tables.shape_table(facts), tables.form_table(facts)],
        ),
    ]
    return Page(
        title=f"Images of {name}",
        subtitle=f"{headline(survey)}. {verdict(survey).capitalize()}.",
        sections=[section for section in sections if section.text or section.items],
        facts={
            "folder": printable_line(str(facts.folder.resolve())),
            "layout": facts.listing.layout,
            "examined in": f"{survey.seconds:,.1f} s",
        },
    )


def _finding_table(survey: Survey) -> Table:
    rows = []
    for finding in survey.findings:
        rows.append(
            [
                _SYMBOLS[finding.severity],
                f"{printable_line(finding.text)}.",
                f"{printable_line(finding.action)}.",
            ]
        )
    if not rows:
        rows = [["✓", "Nothing was found.", ""]]
    return Table("Findings, the most serious first", ["", "finding", "what to do"], rows)


def _copies_text(facts: FolderFacts) -> str:
    copies = facts.copies
    if not copies.groups:
        return "No picture has a copy, neither exact nor near."
    text = (
        "Exact copies are files of equal content. Near copies show the same picture in another "
        "size, quality or brightness. Groups in several classes or splits come first."
    )
    if not copies.search_is_complete:
        text += " The search was limited, because very many pictures are alike."
    return text


def _copy_items(facts: FolderFacts, thumbnails: _Thumbnails) -> Iterator[Item]:
    groups = []
    for group in facts.copies.groups[:_MAX_GROUPS_SHOWN]:
        pictures = thumbnails.of(group.rows[:_PICTURES_PER_GROUP])
        if pictures:
            groups.append(PictureGroup(_group_title(group, facts), pictures))
    if groups:
        yield Gallery("", groups)


def _group_title(group: CopyGroup, facts: FolderFacts) -> str:
    title = f"{group.num_images:,} {'exact' if group.is_exact else 'near'} copies"
    listing = facts.listing
    if group.num_classes > 1:
        classes = sorted({listing.classes[int(listing.labels[row])] for row in group.rows})
        title += f" in different classes: {', '.join(map(printable_line, classes))}"
    if group.num_splits > 1:
        splits = sorted({str(listing[row].split) for row in group.rows})
        title += f"{' and' if group.num_classes > 1 else ''} in different splits: "
        title += ", ".join(splits)
    return title


def _lost_items(facts: FolderFacts) -> list[Item]:
    lost = [tables.unreadable_table(facts, _MAX_ROWS), tables.left_out_table(facts, _MAX_ROWS)]
    return [table for table in lost if table.rows]


def _odd_items(survey: Survey, thumbnails: _Thumbnails) -> Iterator[Item]:
    for finding in survey.findings:
        # Copies are shown as groups, and unreadable files cannot be shown.
        is_single = all(len(rows) == 1 for rows in finding.examples)
        if finding.examples and is_single and finding.name != "unreadable":
            rows = [rows[0] for rows in finding.examples[:_ODD_SHOWN]]
            pictures = thumbnails.of(rows)
            if pictures:
                yield Gallery("", [PictureGroup(f"{finding.text}.", pictures)])


def _example_items(facts: FolderFacts, thumbnails: _Thumbnails) -> Iterator[Item]:
    groups = []
    for name, rows in list(facts.examples.items())[:_MAX_CLASSES_SHOWN]:
        pictures = thumbnails.of(rows)
        if pictures:
            groups.append(PictureGroup(printable_line(name), pictures))
    if groups:
        caption = "Examples of each class"
        if len(facts.classes) > len(groups):
            caption = f"Examples of {counted(len(groups), 'class', 'classes')}"
        yield Gallery(caption, groups)


class _Thumbnails:
    """Reads thumbnails until their bytes are used up. A file that was removed is left out."""

    def __init__(self, facts: FolderFacts, max_bytes: int, advance: Callable[[int], None]) -> None:
        self._facts = facts
        self._bytes_left = max_bytes
        self._advance = advance

    def of(self, rows: Sequence[int]) -> list[Picture]:
        return list(self._pictures(rows))

    def _pictures(self, rows: Iterable[int]) -> Iterator[Picture]:
        from reslearn.data.errors import DataError
        from reslearn.data.pictures import open_picture

        for row in rows:
            if self._bytes_left <= 0:
                return
            image = self._facts.listing[row]
            try:
                content = thumbnail(open_picture(image.path, THUMBNAIL_PX))
            except DataError:
                continue
            self._bytes_left -= len(content)
            self._advance(1)
            yield Picture(content, _shortened(self._facts.listing.name(row)))


def _shortened(name: str) -> str:
    """Return a long name without its middle."""
    text, half = printable_line(name), _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}…{text[-half:]}"
