"""The page in a real browser: Debian's chromium, headless (apt-get install chromium chromium-driver). Skipped where there is none."""

import json
import math
import shutil

import pytest

from reslearn.report import (
    Box,
    Code,
    Column,
    Diagram,
    Figure,
    LayerGroup,
    Page,
    Panels,
    Section,
    Series,
    Table,
    Verdict,
    write_page,
)

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
CHROMIUM, DRIVER = (
    shutil.which("chromium") or shutil.which("chromium-browser"),
    shutil.which("chromedriver"),
)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)

HOSTILE = "</script><script>document.title='broken'</script><img src=http://evil.example/x onerror=alert(1)>"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions"
)


def page():
    steps = list(range(100, 6001, 100))

    def net(name, end):
        falling = [end + 60 * math.exp(-step / 900) for step in steps]
        return [
            Series(f"{name}, training", steps, [y - 2 for y in falling], "dashed", name),
            Series(f"{name}, seed 0", steps, [y + 1 for y in falling], "thin", name),
            Series(
                f"{name}, test",
                steps,
                falling,
                "line",
                name,
                [y - 1 for y in falling],
                [y + 1 for y in falling],
            ),
        ]

    styles = {"dashed": "training error", "line": "test error", "thin": "one seed"}
    left = Figure(
        "left",
        "Plain",
        "Caption.",
        "iteration",
        "error (%)",
        net("plain-20", 9) + net("plain-56", 13),
        styles=styles,
    )
    right = Figure(
        "right",
        "Residual",
        "Caption.",
        "iteration",
        "error (%)",
        net("ResNet-20", 8),
        y_log=True,
        styles=styles,
    )
    depth = Figure(
        "depth",
        HOSTILE,
        HOSTILE,
        "layers",
        "error (%)",
        [Series(HOSTILE, [20, 56], [9, 13]), Series("b", [20, 56], [8, 7])],
    )
    wide = Table(
        "A wide table",
        ["network", *(Column(f"a column {i}", ".2f") for i in range(12))],
        [["plain-20", *range(12)]],
    )
    claims = Table(
        "Claims",
        ["claim", "measured", "verdict"],
        [["C1", HOSTILE, Verdict("shown", "a long note " * 8)]],
    )
    layers = [Box("conv 3×3, 16 → 16 · batch norm", "16×32×32"), Box("layer " * 20)]
    block = LayerGroup(layers, "a.block.name" * 5, "new", "option A", "ReLU", marked=True)
    net = Diagram(
        "A network",
        "Caption.",
        [LayerGroup([Box("stem")]), block, block, block, LayerGroup([Box("head", "10")])],
        mark="left out",
    )
    sections = [
        Section("Curves", "", [Panels([left, right]), depth]),
        Section("Tables", HOSTILE, [claims, wide, Code("reslearn " * 40)]),
    ]
    sections.append(Section("Network", "", [net]))
    return Page("A page", HOSTILE, [*sections, Section("A" * 200)], {"device": HOSTILE})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(page(), tmp_path_factory.mktemp("page")).as_uri()


def show(browser, address, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(address)


def boxes(browser, selector):
    box = "e => {const b = e.getBoundingClientRect(); return [b.left, b.width, b.height]}"
    script = f"return [...document.querySelectorAll(arguments[0])].map({box})"
    return browser.execute_script(script, selector)


def move(browser, selector, right, down):
    script = """const plot = document.querySelector(arguments[0]); plot.scrollIntoView({block: 'center'});
        const b = plot.getBoundingClientRect(); return [b.left + b.width * arguments[1], b.top + b.height * arguments[2]]"""
    x, y = browser.execute_script(script, selector, right, down)
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def tip(browser, figure="left"):
    return browser.execute_script(
        f"const t = document.querySelector('#figure-{figure} .tip'); return t.hidden ? '' : t.innerText"
    )


def key(browser, name):
    for kind in ("keyDown", "keyUp"):
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": name, "code": name})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_everything_is_visible_and_nothing_overflows(browser, address, width, scheme):
    show(browser, address, width, scheme)
    assert browser.title == "A page"
    expected = {
        "svg.area": 3,
        "figure": 4,
        "table": 2,
        ".curve .stroke": 11,
        "pre": 1,
        ".box": 4,
        ".boxes > .arc": 1,
    }
    for selector, number in expected.items():
        found = boxes(browser, selector)
        assert len(found) == number
        assert all(w > 20 and h > 20 for _, w, h in found if selector != "pre")
    overflow = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0
    if width == 375:
        wide = "const s = document.querySelectorAll('.scroll')[1]; return [s.scrollWidth > s.clientWidth, s.clientWidth]"
        scrolls, visible = browser.execute_script(wide)
        assert scrolls and visible <= 375
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    dark = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")) < 200
    assert dark == (scheme == "dark")


def test_no_request_leaves_and_the_console_is_silent(browser, address):
    browser.get_log("browser")
    browser.get_log("performance")
    show(browser, address, 1280)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert address in requests
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert browser.get_log("browser") == []


def test_hover_and_keys_show_values(browser, address):
    show(browser, address, 1280)
    assert tip(browser) == ""
    move(browser, "#figure-left .plot", 0.5, 0.99)
    said = tip(browser)
    assert said.startswith(
        ("plain-20, training\niteration 3,", "plain-20, training\niteration 2,9")
    )
    assert "error (%)" in said
    assert boxes(browser, "#figure-left .dot")[0][1] > 0
    browser.execute_script("document.querySelector('#figure-depth .plot').focus()")
    key(browser, "ArrowRight")
    assert "layers 20\nerror (%) 9" in tip(browser, "depth")
    assert "document.title" in tip(browser, "depth")  # a hostile name is shown, not run
    key(browser, "ArrowRight")
    assert "layers 56\nerror (%) 13" in tip(browser, "depth")
    key(browser, "ArrowDown")
    assert "b\nlayers 56\nerror (%) 7" in tip(browser, "depth")
    key(browser, "Escape")
    assert tip(browser, "depth") == ""
    assert browser.title == "A page"


def test_a_finger_shows_values_within_the_screen(browser, address):
    show(browser, address, 375)
    script = """const plot = document.querySelector('#figure-right .plot'); plot.scrollIntoView({block: 'center'});
        const b = plot.getBoundingClientRect();
        const at = {clientX: b.left + b.width * .97, clientY: b.top + 40, pointerType: 'touch', bubbles: true};
        plot.dispatchEvent(new PointerEvent('pointerdown', at)); plot.dispatchEvent(new PointerEvent('pointerleave', at))"""
    browser.execute_script(script)
    assert "iteration" in tip(browser, "right")
    ((left, width, _),) = boxes(browser, "#figure-right .tip")
    assert left >= 0 and left + width <= 375


def test_the_legend_switches_groups_and_kinds(browser, address):
    show(browser, address, 1280)
    shown = "return [...document.querySelectorAll('#figure-left .curve')].filter(e => e.getBoundingClientRect().width > 0).length"
    click = "document.querySelector(`#figure-left .legend [data-${arguments[0]}='${arguments[1]}']`).click()"
    assert browser.execute_script(shown) == 6
    browser.execute_script(click, "group", "0")
    assert browser.execute_script(shown) == 3
    browser.execute_script(click, "style", "thin")
    assert browser.execute_script(shown) == 2
    move(browser, "#figure-left .plot", 0.5, 0.99)
    assert tip(browser).startswith("plain-56, training")
    browser.execute_script(click, "group", "0")
    browser.execute_script(click, "style", "thin")
    assert browser.execute_script(shown) == 6
