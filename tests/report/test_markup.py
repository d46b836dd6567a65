"""The HTML: whole in itself, escaped throughout, small, with real tables."""

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
    Number,
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
    figure = Figure(
        "f", HOSTILE, HOSTILE, HOSTILE, HOSTILE, series, styles={"line": HOSTILE, "thin": HOSTILE}
    )
    table = Table(
        HOSTILE, [HOSTILE, Column(HOSTILE, ".1f"), "v"], [[HOSTILE, 1.0, Verdict("shown", HOSTILE)]]
    )
    items = [HOSTILE, figure, table, Facts({HOSTILE: HOSTILE}, HOSTILE), Code(HOSTILE, HOSTILE)]
    return Page(HOSTILE, HOSTILE, [Section(HOSTILE, f"`{HOSTILE}`", items)] * 1, {HOSTILE: HOSTILE})


class Tags(HTMLParser):
    """Counts tags, checks that they nest, and keeps the text outside of scripts and styles."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text, self.attributes = [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def test_hostile_names_stay_text():
    html = render_html(hostile_page())
    page = Tags(html)
    assert page.open == []
    assert page.tags.count("script") == 2  # the figure's numbers and our own
    assert "img" not in page.tags
    assert not [entry for entry in page.attributes if entry[1].startswith("on")]
    assert page.text.count("alert('x')") >= 12
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html).group(1))
    assert data["series"][0]["name"] == HOSTILE
    assert data["series"][0]["y"] == [1, None, 2]


def test_no_request_leaves_and_only_our_script_may_run():
    html = render_html(hostile_page())
    page = Tags(html)
    addresses = [
        value
        for tag, name, value in page.attributes
        if name in ("src", "href", "action", "data", "srcset")
    ]
    assert addresses
    assert all(value.startswith(("#", "data:", "figures/")) for value in addresses)
    assert "@import" not in html and "url(" not in html
    (policy,) = [
        value
        for tag, name, value in page.attributes
        if tag == "meta" and name == "content" and "default-src" in value
    ]
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[-1]
    assert (
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    )
    assert (
        "default-src 'none'" in policy and "unsafe-inline" not in policy.partition("script-src")[2]
    )


def test_tables_are_real_and_verdicts_need_no_color():
    rows = [
        [outcome, value, Verdict(outcome)]
        for outcome, value in (("shown", 1.0), ("not shown", -2), ("undecided", math.nan))
    ]
    rows.append(["not testable here", None, Verdict("not testable here", "no such data")])
    html = render_html(
        Page(
            "p",
            "",
            [
                Section(
                    "s", "", [Table("Caption", ["claim", Column("value", ".2f"), "verdict"], rows)]
                )
            ],
        )
    )
    tags = Tags(html)
    assert tags.tags.count("caption") == tags.tags.count("thead") == 1
    assert html.count('<th scope="col"') == 3 and html.count('<th scope="row"') == 4
    assert re.findall(r'<td class="number">([^<]*)</td>', html) == ["1.00", "−2.00", "–", "–"]
    for word, symbol in (
        ("shown", "✓"),
        ("not shown", "✗"),
        ("undecided", "?"),
        ("not testable here", "–"),
    ):
        assert f'<i aria-hidden="true">{symbol}</i>{word}</span>' in html


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (Number(0.5, ".0%"), "50%"),
        (None, "–"),
        (math.inf, "–"),
        (True, "1"),
    ],
)
def test_numbers_read_well(cell, text):
    html = render_html(
        Page("p", "", [Section("s", "", [Table("t", ["name", "n"], [["a", cell]])])])
    )
    assert f">{text}</td>" in html


def test_numbers_of_tables_and_figures_count_through_the_page():
    def figure(name):
        return Figure(name, name, "", "x", "y", [Series("a", [1], [1])])

    table = Table("t", ["a"], [["b"]])
    sections = [
        Section("s", "", [table, Panels([figure("a"), figure("b")])]),
        Section("t", "", [figure("c"), table]),
    ]
    html = render_html(Page("p", "", sections))
    assert re.findall(r"<b>(Figure \d|Table \d)", html) == [
        "Table 1",
        "Figure 1",
        "Figure 2",
        "Figure 3",
        "Table 2",
    ]


def test_a_large_study_stays_below_two_megabytes():
    wave = [50 + 40 * math.sin(i / 3) for i in range(1000)]
    figures = [
        Figure(f"f{i}", "T", "C", "x", "y", [Series(f"s{j}", range(1000), wave) for j in range(16)])
        for i in range(40)
    ]
    page = Page("Large", "", [Section("s", "", figures)])
    files = {f"figures/f{i}.csv": ("text/csv", b"x" * 90_000) for i in range(40)}
    html = render_html(page, files)
    assert len(html.encode()) < 2_000_000
    assert (
        html.count("data:text/csv") == 5
    )  # as many as there is room for; the others are beside the page
    assert 'href="figures/f39.csv"' in html


def test_write_page_puts_page_pictures_and_numbers(tmp_path):
    path = write_page(hostile_page(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert sorted(p.name for p in path.parent.rglob("*") if p.is_file()) == [
        "f.csv",
        "f.png",
        "report.html",
    ]
    assert (path.parent / "figures" / "f.png").read_bytes().startswith(b"\x89PNG")
    text = (path.parent / "figures" / "f.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["series", "group", "style", HOSTILE, HOSTILE, "low", "high"]
    assert rows[1:3] == [
        [HOSTILE, HOSTILE, "line", "1", "1", "0", "2"],
        [HOSTILE, HOSTILE, "line", "2", "", "0", "3"],
    ]
    embedded = re.search(
        r'href="data:text/csv[^,]*,([^"]+)" download="f.csv"', path.read_text(encoding="utf-8")
    ).group(1)
    assert base64.b64decode(embedded).decode() == text


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    write_page(Page("old"), tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    figure = Figure("f", "t", "", "x", "y", [Series("a", [1], [1])])
    with pytest.raises(ValueError, match="two figures named f"):
        write_page(Page("new", "", [Section("s", "", [figure, figure])]), tmp_path)
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match="figures cannot be made"):
        write_page(Page("new", "", [Section("s", "", [figure])]), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures", "report.html"]


def test_same_page_same_bytes(tmp_path):
    first, second = (write_page(hostile_page(), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
