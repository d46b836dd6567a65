"""A page put into a folder: report.html, figures/NAME.png and figures/NAME.csv.

Each file is written aside and renamed, the page last: what lies there is the old report or the new one, never half of one.
"""

from __future__ import annotations

from pathlib import Path

from reslearn.report.content import Page
from reslearn.report.markup import render_html
from reslearn.report.numbers import figure_csv
from reslearn.runs import make_folder, write_atomically


def write_page(page: Page, folder: Path | str) -> Path:
    """Write `page` into `folder` (made if absent; other files in it are left alone) and return the path of report.html.

    Raises ValueError for two figures of one name, RunError where the folder cannot be made, OSError where it cannot be written.
    """
    from reslearn.report.png import figure_png

    folder = Path(folder)
    downloads: dict[str, tuple[str, bytes]] = {}
    for figure in page.figures():
        downloads[f"figures/{figure.name}.csv"] = (
            "text/csv;charset=utf-8",
            figure_csv(figure).encode(),
        )
        downloads[f"figures/{figure.name}.png"] = ("image/png", figure_png(figure))
    html = render_html(page, downloads)
    make_folder(folder / "figures" if downloads else folder)
    for path, (_, content) in downloads.items():
        _put(folder / path, content)
    _put(folder / "report.html", html.encode())
    return folder / "report.html"


def _put(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
