"""The facts about a folder as tables, which the terminal and the page both show."""

from __future__ import annotations

from reslearn.report import Cell, Column, Table
from reslearn.survey.facts import FolderFacts, Range
from reslearn.terminal import printable_line


def make_tables(facts: FolderFacts, *, max_rows: int) -> list[Table]:
    """Return all tables that have something to say.

    Args:
        max_rows: A longer table ends with a row that says how many rows are missing.
    """
    tables = [
        class_table(facts, max_rows),
        size_table(facts),
        form_table(facts),
        shape_table(facts),
        left_out_table(facts, max_rows),
        unreadable_table(facts, max_rows),
    ]
    return [table for table in tables if table.rows]


def class_table(facts: FolderFacts, max_rows: int) -> Table:
    """Return the readable images of each class in each split."""
    totals = facts.class_counts()
    splits = list(facts.counts)
    rows: list[list[Cell]] = []
    for name in facts.classes:
        numbers = [facts.counts[split][name] for split in splits]
        sums = [totals[name]] if len(splits) > 1 else []
        rows.append([printable_line(name), *numbers, *sums])
        if facts.unreadable_of_class:
            rows[-1].append(facts.unreadable_of_class.get(name, 0))
    columns = ["class", *splits, *(["total"] if len(splits) > 1 else [])]
    if facts.unreadable_of_class:
        columns.append("unreadable")
    caption = "Readable images of each class"
    if facts.is_drawn:
        caption += ". Training draws the splits that the folder does not give."
    return Table(caption, columns, _limited(rows, max_rows, len(columns)))


def size_table(facts: FolderFacts) -> Table:
    """Return the ranges of sides and bytes."""
    rows: list[list[Cell]] = []
    for name, values in facts.sizes.items():
        unit = "" if name == "bytes" else ", pixels"
        rows.append([name + unit, *_range_cells(values)])
    columns = [Column(name, ",") for name in ("smallest", "10th percentile", "median", "largest")]
    return Table("Sizes of the images", ["", *columns], rows)


def form_table(facts: FolderFacts) -> Table:
    """Return the file formats and color modes."""
    rows: list[list[Cell]] = []
    for kind, numbers in (("format", facts.formats), ("color mode", facts.modes)):
        for name, number in numbers.items():
            rows.append([f"{kind} {name}", number, 100 * number / facts.num_images])
    return Table("File formats and color modes", ["", "images", Column("share in %", ".1f")], rows)


def shape_table(facts: FolderFacts) -> Table:
    """Return the aspect ratios, and what a center crop removes."""
    rows: list[list[Cell]] = []
    for shape in facts.shapes:
        share_pct = 100 * shape.num_images / facts.num_images
        rows.append([shape.name, shape.num_images, share_pct, shape.lost_pct])
    columns: list[Column | str] = ["long side : short side", "images", Column("share in %", ".1f")]
    columns.append(Column("area lost in %", ".0f"))
    return Table("What a center crop removes from images of each shape", columns, rows)


def left_out_table(facts: FolderFacts, max_rows: int) -> Table:
    """Return the files that are no pictures by their suffix."""
    rows: list[list[Cell]] = []
    for files in facts.listing.left_out:
        first = printable_line(files.first.name)
        class_name, suffix = printable_line(files.class_name), printable_line(files.suffix)
        rows.append([class_name or "none", suffix or "none", files.count, first])
    columns = ["class", "suffix", "files", "the first"]
    return Table("Files left out for their suffix", columns, _limited(rows, max_rows, 4))


def unreadable_table(facts: FolderFacts, max_rows: int) -> Table:
    """Return the files that cannot be read, with the reason."""
    rows: list[list[Cell]] = []
    for row, reason in facts.unreadable.items():
        if len(rows) > max_rows:
            break
        rows.append([printable_line(facts.listing.name(row)), printable_line(reason)])
    rows = _limited(rows, max_rows, 2, total=facts.num_unreadable)
    return Table("Files that cannot be read", ["file", "reason"], rows)


def _limited(
    rows: list[list[Cell]], max_rows: int, num_columns: int, total: int | None = None
) -> list[list[Cell]]:
    """Return the first rows, and a row with the number of the others."""
    number = len(rows) if total is None else total
    if number <= max_rows:
        return rows
    last: list[Cell] = [f"and {number - max_rows:,} more", *[None] * (num_columns - 1)]
    return [*rows[:max_rows], last]


def _range_cells(values: Range) -> list[Cell]:
    return [values.minimum, values.tenth, values.median, values.maximum]
