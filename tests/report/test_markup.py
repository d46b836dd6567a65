"""The HTML of a page: self-contained, escaped, small, and with real tables."""

import base64
import csv
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest

from reslearn.report import (
    Code,
    Column,
    Facts,
    Figure,
    Page,
    Panels,
    Section,
    Series,
    Table,
    Verdict,
    render_html,
    write_page,
)

HOSTILE = "</script><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'&"


def hostile_page():
    series = [
        Series(HOSTILE, [1, 2, 3], [1, math.nan, 2], low=[0, 0, 1], high=[2, 3, 4]),
        Series("b", [1, 2], [2, 1], "thin", HOSTILE),
    ]
    styles = {"line": HOSTILE, "thin": HOSTILE}
    figure = Figure("f", HOSTILE, HOSTILE, HOSTILE, HOSTILE, series, styles=styles)
    columns = [HOSTILE, Column(HOSTILE, ".1f"), "v"]
    table = Table(HOSTILE, columns, [[HOSTILE, 1.0, Verdict("shown", HOSTILE)]])
    items = [HOSTILE, figure, table, Facts({HOSTILE: HOSTILE}, HOSTILE), Code(HOSTILE, HOSTILE)]
    section = Section(HOSTILE, f"`{HOSTILE}`", items)
    return Page(HOSTILE, HOSTILE, [section], {HOSTILE: HOSTILE})


def html_of(*items):
    return render_html(Page("p", "", [Section("s", "", items)]))


def simple_figure(name):
    return Figure(name, name, "", "x", "y", [Series("a", [1], [1])])


class ParsedPage(HTMLParser):
    """Collects tags, attributes and visible text, and checks that tags are nested."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open_tags, self.text, self.attributes = [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if self.open_tags and self.open_tags[-1] not in ("script", "style"):
            self.text += data


def test_hostile_names_remain_text():
    html = render_html(hostile_page())
    page = ParsedPage(html)
    assert page.open_tags == []
    assert page.tags.count("script") == 2  # the numbers of the figure and the script of the page
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("alert('x')") >= 12
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html).group(1))
    assert data["series"][0]["name"] == HOSTILE
    assert data["series"][0]["y"] == [1, None, 2]


def test_the_page_loads_nothing_and_only_its_own_script_may_run():
    html = render_html(hostile_page())
    page = ParsedPage(html)
    loading = ("src", "href", "action", "data", "srcset")
    addresses = [value for _, name, value in page.attributes if name in loading]
    assert addresses
    assert all(value.startswith(("#", "data:", "figures/")) for value in addresses)
    assert "@import" not in html and "url(" not in html
    contents = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
    (policy,) = [value for value in contents if "default-src" in value]
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[-1]
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{script_hash}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_tables_are_real_and_verdicts_do_not_depend_on_color():
    rows = [
        ["shown", 1.0, Verdict("shown")],
        ["not shown", -2, Verdict("not shown")],
        ["undecided", math.nan, Verdict("undecided")],
        ["not testable here", None, Verdict("not testable here", "no such data")],
    ]
    html = html_of(Table("Caption", ["claim", Column("value", ".2f"), "verdict"], rows))
    tags = ParsedPage(html).tags
    assert tags.count("caption") == tags.count("thead") == 1
    assert html.count('<th scope="col"') == 3 and html.count('<th scope="row"') == 4
    assert re.findall(r'<td class="number">([^<]*)</td>', html) == ["1.00", "−2.00", "–", "–"]
    symbols = {"shown": "✓", "not shown": "✗", "undecided": "?", "not testable here": "–"}
    for word, symbol in symbols.items():
        assert f'<i aria-hidden="true">{symbol}</i>{word}</span>' in html


def test_a_table_of_long_texts_becomes_cards_that_screen_readers_know_as_a_table():
    short = html_of(Table("Caption", ["claim", "measured"], [["C1", "8.75"]]))
    assert 'class="scroll"' in short and "data-label" not in short.partition("<body>")[2]
    rows = [["C1", "a sentence of more than 28 characters"]]
    html = html_of(Table("Caption", ["claim", "measured"], rows))
    assert 'class="scroll cards"' in html and 'data-label="measured"' in html
    roles = [value for _, name, value in ParsedPage(html).attributes if name == "role"]
    for role in ("table", "row", "columnheader", "rowheader", "cell"):
        assert role in roles


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (None, "–"),
        (math.inf, "–"),
        (True, "1"),
    ],
)
def test_numbers_are_formatted_for_readers(cell, text):
    assert f">{text}</td>" in html_of(Table("t", ["name", "n"], [["a", cell]]))


def test_tables_and_figures_are_numbered_through_the_page():
    table = Table("t", ["a"], [["b"]])
    sections = [
        Section("s", "", [table, Panels([simple_figure("a"), simple_figure("b")])]),
        Section("t", "", [simple_figure("c"), table]),
    ]
    html = render_html(Page("p", "", sections, lead=simple_figure("lead")))
    numbers = re.findall(r"<b>(Figure \d|Table \d)", html)
    assert numbers == ["Figure 1", "Table 1", "Figure 2", "Figure 3", "Figure 4", "Table 2"]


def test_a_large_study_is_smaller_than_two_megabytes():
    x, wave = range(1000), [50 + 40 * math.sin(index / 3) for index in range(1000)]
    series = [Series(f"s{number}", x, wave) for number in range(16)]
    figures = [Figure(f"f{number}", "T", "C", "x", "y", series) for number in range(40)]
    files = {f"figures/{figure.name}.csv": ("text/csv", b"x" * 90_000) for figure in figures}
    html = render_html(Page("Large", "", [Section("s", "", figures)]), files)
    assert len(html.encode()) < 2_000_000
    assert html.count("data:text/csv") == 5  # the embedded files; all others are linked
    assert 'href="figures/f39.csv"' in html


def test_write_page_writes_page_pictures_and_numbers(tmp_path):
    path = write_page(hostile_page(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    files = sorted(file.name for file in path.parent.rglob("*") if file.is_file())
    assert files == ["f.csv", "f.png", "report.html"]
    assert (path.parent / "figures" / "f.png").read_bytes().startswith(b"\x89PNG")
    text = (path.parent / "figures" / "f.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["series", "group", "style", HOSTILE, HOSTILE, "low", "high"]
    assert rows[1:3] == [
        [HOSTILE, HOSTILE, "line", "1", "1", "0", "2"],
        [HOSTILE, HOSTILE, "line", "2", "", "0", "3"],
    ]
    html = path.read_text(encoding="utf-8")
    link = re.search(r'href="data:text/csv[^,]*,([^"]+)" download="f.csv"', html)
    assert base64.b64decode(link.group(1)).decode() == text


def test_a_page_that_cannot_be_written_leaves_the_old_page(tmp_path):
    write_page(Page("old"), tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    figure = simple_figure("f")
    with pytest.raises(ValueError, match="two figures named f"):
        write_page(Page("new", "", [Section("s", "", [figure, figure])]), tmp_path)
    (tmp_path / "figures").write_text("a file instead of a folder")
    with pytest.raises(ValueError, match="figures cannot be created"):
        write_page(Page("new", "", [Section("s", "", [figure])]), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "report.html"]


def test_equal_pages_have_equal_bytes(tmp_path):
    first, second = (write_page(hostile_page(), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
