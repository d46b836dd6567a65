"""CSV files of path and label, with an optional column for the split.

The first row names the columns. Without such a row, the columns are path, label and split, in this
order. Paths are relative to the folder of the file. Commas, semicolons and tabs separate columns.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from reslearn.data.errors import DataError

SPLIT_VALUES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset", "partition"),
}
_PREFERRED_FILES = ("labels.csv", "metadata.csv")
_SUFFIXES = (".csv", ".tsv")
_SAMPLE_CHARACTERS = 4096


class LabelRow(NamedTuple):
    """One image of a CSV file. `num_bytes` is 0 for a path that leads nowhere."""

    path: str
    label: str
    split: str | None
    num_bytes: int


def is_label_file(name: str) -> bool:
    """Return whether a name is the path of an existing CSV file."""
    path = Path(name).expanduser()
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def find_label_file(folder: Path) -> Path | None:
    """Return labels.csv or metadata.csv of a folder, or its only CSV file, or None."""
    for name in _PREFERRED_FILES:
        if (folder / name).is_file():
            return folder / name
    tables = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
    visible = [path for path in tables if path.is_file() and not path.name.startswith(".")]
    return visible[0] if len(visible) == 1 else None


def read_label_file(path: Path) -> Iterator[LabelRow]:
    """Yield the rows of a CSV file in order.

    Raises:
        DataError: If the file is no table of path and label, if a row lacks one of them or has an
            unknown split, or if more than half of the paths lead nowhere.
    """
    num_rows, missing = 0, 0
    first_missing = ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.read(_SAMPLE_CHARACTERS)
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(sample))
            columns: dict[str, int] | None = None
            for values in reader:
                if not any(value.strip() for value in values):
                    continue
                if columns is None:
                    columns, is_header = _find_columns(path, values)
                    if is_header:
                        continue
                row = _parse_row(path, reader.line_num, values, columns)
                num_rows += 1
                if row.num_bytes < 0:
                    missing += 1
                    first_missing = first_missing or f"{row.path} (line {reader.line_num})"
                    row = row._replace(num_bytes=0)
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read the CSV file {path}: {reason}") from None
    if num_rows == 0:
        raise DataError(f"{path} has no rows: it needs the columns path and label")
    if 2 * missing > num_rows:
        raise DataError(
            f"{missing:,} of {num_rows:,} paths of {path} lead nowhere, the first is "
            f"{first_missing}: paths are relative to {path.parent}, or absolute"
        )


def _delimiter(sample: str) -> str:
    first_line = sample.partition("\n")[0]
    return max(",;\t", key=first_line.count)


def _find_columns(path: Path, first_row: Sequence[str]) -> tuple[dict[str, int], bool]:
    """Return the column of path, label and split, and whether the first row names them."""
    titles = [title.strip().lower() for title in first_row]
    columns: dict[str, int] = {}
    for column, names in _COLUMNS.items():
        for name in names:
            if name in titles:
                columns[column] = titles.index(name)
                break
    if "path" in columns and "label" in columns:
        return columns, True
    if len(first_row) in (2, 3) and (path.parent / first_row[0].strip()).is_file():
        names = ("path", "label", "split")[: len(first_row)]
        return {name: index for index, name in enumerate(names)}, False
    raise DataError(
        f"{path} has the columns {', '.join(map(repr, first_row[:6]))}: "
        "name them path, label and, if splits are given, split"
    )


def _parse_row(path: Path, line: int, values: Sequence[str], columns: dict[str, int]) -> LabelRow:
    """Return a row; `num_bytes` is -1 for a path that leads nowhere."""
    cells = {}
    for name, column in columns.items():
        cells[name] = values[column].strip() if column < len(values) else ""
    for required in ("path", "label"):
        if not cells[required]:
            raise DataError(f"line {line} of {path} has no {required}: add it or remove the line")
    split = None
    if cells.get("split"):
        split = SPLIT_VALUES.get(cells["split"].lower())
        if split is None:
            raise DataError(
                f"line {line} of {path} has split {cells['split']!r}: "
                "allowed are train, validation (val, valid) and test"
            )
    elif "split" in columns:
        raise DataError(
            f"line {line} of {path} has no split: write train, validation or test in every line, "
            "or remove the column"
        )
    existing = _existing_name(path.parent, cells["path"])
    num_bytes = -1 if existing is None else (path.parent / existing).stat().st_size
    return LabelRow(existing or cells["path"], cells["label"], split, num_bytes)


def _existing_name(folder: Path, name: str) -> str | None:
    """Return the name of a file, with slashes where a table has backslashes, or None."""
    for spelling in (name, name.replace("\\", "/")):
        try:
            if (folder / spelling).is_file():
                return spelling
        except (OSError, ValueError):  # too long, or with a zero byte
            continue
    return None
