"""Pages in a real browser: headless chromium, if it and its driver are installed."""

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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)

HOSTILE = (
    "</script><script>document.title='broken'</script>"
    "<img src=http://evil.example/x onerror=alert(1)>"
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-extensions"
)
STYLES = {"dashed": "training error", "line": "test error", "thin": "one seed"}
DESKTOP, PHONE = (1280, 800), (390, 844)
PICTURES = {"train": 9, "test": 3}


def network_series(name, end):
    steps = list(range(100, 6001, 100))
    errors = [end + 60 * math.exp(-step / 900) for step in steps]
    low, high = [y - 1 for y in errors], [y + 1 for y in errors]
    return [
        Series(f"{name}, training", steps, [y - 2 for y in errors], "dashed", name),
        Series(f"{name}, seed 0", steps, high, "thin", name),
        Series(f"{name}, test", steps, errors, "line", name, low, high),
    ]


def curve_figure(name, title, series, **options):
    return Figure(name, title, "Caption.", "iteration", "error (%)", series, **options)


def diagram():
    layers = [Box("conv 3×3, 16 → 16 · batch norm", "16×32×32"), Box("layer " * 20)]
    block = LayerGroup(layers, "a.block.name" * 5, "new", "option A", "ReLU", marked=True)
    stem, head = LayerGroup([Box("stem")]), LayerGroup([Box("head", "10")])
    return Diagram("A network", "Caption.", [stem, block, block, block, head], mark="left out")


def claims_table():
    """Return a table of long texts, as the page of the claims has one."""
    rows = [
        ["C1", HOSTILE, Verdict("shown", "a long note " * 8), "training error 9.7 % " * 5],
        ["C2", "Depth is easy", Verdict("undecided"), ""],
    ]
    return Table("Claims", ["", "claim", "verdict", "measured here"], rows)


def page():
    left_series = network_series("plain-20", 9) + network_series("plain-56", 13)
    left = curve_figure("left", "Plain", left_series, styles=STYLES)
    right_series = network_series("ResNet-20", 8)
    right = curve_figure("right", "Residual", right_series, styles=STYLES, y_log=True)
    depth_series = [Series(HOSTILE, [20, 56], [9, 13]), Series("b", [20, 56], [8, 7])]
    depth = Figure("depth", HOSTILE, HOSTILE, "layers", "error (%)", depth_series)
    columns = ["network", *(Column(f"a column {index}", ".2f") for index in range(12))]
    wide = Table("A wide table", columns, [["plain-20", *range(12)]])
    sections = [
        Section("Curves", "", [Panels([left, right]), depth]),
        Section("Tables", HOSTILE, [claims_table(), wide, Code("reslearn " * 40)]),
        Section("Network", "", [diagram()]),
        Section("A" * 200),
    ]
    return Page("A page", HOSTILE, sections, {"device": HOSTILE})


def page_with_lead():
    """Return a page with the title, subtitle, facts and lead figure of the page of the claims."""
    series = []
    for kind in ("plain", "residual"):
        for style in ("dashed", "line", "thin", "thin-dashed"):
            series.append(Series(f"{kind}, {style}", [8, 20, 56], [9, 20, 50], style, kind))
    styles = {
        "dashed": "training, mean",
        "line": "test, mean",
        "thin-dashed": "training, each seed",
        "thin": "test, each seed",
    }
    lead = curve_figure("lead", "Error against depth", series, styles=styles)
    subtitle = "The claims on the first page of a paper, and the results of this machine."
    facts = {f"fact {number}": "a value" for number in range(6)}
    sections = [Section(f"Section {number}", "Text.", [claims_table()]) for number in range(4)]
    return Page("Deep residual learning, claim by claim", subtitle, sections, facts, lead)


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


@pytest.fixture(scope="module")
def lead_address(tmp_path_factory):
    return write_page(page_with_lead(), tmp_path_factory.mktemp("lead")).as_uri()


def open_page(browser, address, size, scheme="light"):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
    browser.get(address)


def boxes(browser, selector):
    """Return (left, top, width, height) in pixels of each element that matches."""
    script = """return [...document.querySelectorAll(arguments[0])].map((element) => {
        const box = element.getBoundingClientRect();
        return [box.left, box.top, box.width, box.height];
    })"""
    return browser.execute_script(script, selector)


def overflow_px(browser):
    root = "document.documentElement"
    return browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")


def move_pointer(browser, selector, right, down):
    """Move the pointer over an element; `right` and `down` are fractions of its size."""
    script = """const element = document.querySelector(arguments[0]);
        element.scrollIntoView({block: 'center'});
        const box = element.getBoundingClientRect();
        return [box.left + box.width * arguments[1], box.top + box.height * arguments[2]]"""
    x, y = browser.execute_script(script, selector, right, down)
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def tip_text(browser, figure="left"):
    script = """const tip = document.querySelector(arguments[0]);
        return tip.hidden ? '' : tip.innerText"""
    return browser.execute_script(script, f"#figure-{figure} .tip")


def press(browser, key):
    for kind in ("keyDown", "keyUp"):
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_element_is_visible_and_the_page_does_not_scroll_sideways(
    browser, address, size, scheme
):
    open_page(browser, address, size, scheme)
    assert browser.title == "A page"
    num_elements = {
        "svg.area": 3,
        "figure": 4,
        "table": 2,
        ".curve .stroke": 11,
        "pre": 1,
        ".box": 4,
        ".boxes > .arc": 1,
    }
    for selector, number in num_elements.items():
        elements = boxes(browser, selector)
        assert len(elements) == number
        assert selector == "pre" or min(min(box[2:]) for box in elements) > 20
    assert overflow_px(browser) <= 0
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    channels = ground.removeprefix("rgb(").removesuffix(")").split(",")
    is_dark = sum(int(channel) for channel in channels) < 200
    assert is_dark == (scheme == "dark")


def test_a_wide_table_of_numbers_scrolls_in_its_own_box_on_a_phone(browser, address):
    open_page(browser, address, PHONE)
    script = """const box = document.querySelectorAll('.scroll')[1];
        return [box.scrollWidth > box.clientWidth, box.clientWidth]"""
    scrolls, visible_px = browser.execute_script(script)
    assert scrolls and visible_px <= PHONE[0]


def test_a_table_of_long_texts_is_readable_on_a_phone_without_scrolling(browser, address):
    open_page(browser, address, PHONE)
    script = (
        "const box = document.querySelector('.cards'); return box.scrollWidth - box.clientWidth"
    )
    assert browser.execute_script(script) <= 0
    for left, _, width, height in boxes(browser, ".cards tbody :is(tr, th, td:not(:empty))"):
        assert left >= 0 and left + width <= PHONE[0] and height > 10
    first_label = "return getComputedStyle(document.querySelector('.cards td'), '::before').content"
    assert browser.execute_script(first_label) == '"claim"'
    open_page(browser, address, DESKTOP)
    assert browser.execute_script(first_label) == "none"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_lead_figure_is_on_the_first_screen(browser, lead_address, size):
    open_page(browser, lead_address, size)
    width, height = size
    (left, top, plot_width, plot_height) = boxes(browser, "#figure-lead .plot")[0]
    assert top > 0 and top + plot_height < height
    assert left >= 0 and left + plot_width <= width
    assert overflow_px(browser) <= 0


def test_the_page_makes_no_request_and_logs_nothing(browser, address):
    browser.get_log("browser")
    browser.get_log("performance")
    open_page(browser, address, DESKTOP)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
    requests = [message["params"]["request"]["url"] for message in sent]
    assert address in requests
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert browser.get_log("browser") == []


def test_pointer_and_keys_show_values(browser, address):
    open_page(browser, address, DESKTOP)
    assert tip_text(browser) == ""
    move_pointer(browser, "#figure-left .plot", 0.5, 0.99)
    text = tip_text(browser)
    assert text.startswith("plain-20, training\niteration ")
    assert "iteration 3," in text or "iteration 2,9" in text
    assert "error (%)" in text
    assert boxes(browser, "#figure-left .dot")[0][2] > 0
    browser.execute_script("document.querySelector('#figure-depth .plot').focus()")
    press(browser, "ArrowRight")
    assert "layers 20\nerror (%) 9" in tip_text(browser, "depth")
    assert "document.title" in tip_text(browser, "depth")  # a hostile name is shown, not run
    press(browser, "ArrowRight")
    assert "layers 56\nerror (%) 13" in tip_text(browser, "depth")
    press(browser, "ArrowDown")
    assert "b\nlayers 56\nerror (%) 7" in tip_text(browser, "depth")
    press(browser, "Escape")
    assert tip_text(browser, "depth") == ""
    assert browser.title == "A page"


def test_a_finger_shows_values_within_the_screen(browser, address):
    open_page(browser, address, PHONE)
    script = """const plot = document.querySelector('#figure-right .plot');
        plot.scrollIntoView({block: 'center'});
        const box = plot.getBoundingClientRect();
        const position = {clientX: box.left + box.width * .97, clientY: box.top + 40};
        const options = {...position, pointerType: 'touch', bubbles: true};
        plot.dispatchEvent(new PointerEvent('pointerdown', options));
        plot.dispatchEvent(new PointerEvent('pointerleave', options))"""
    browser.execute_script(script)
    assert "iteration" in tip_text(browser, "right")
    ((left, _, width, _),) = boxes(browser, "#figure-right .tip")
    assert left >= 0 and left + width <= PHONE[0]


def test_the_legend_shows_and_hides_groups_and_styles(browser, address):
    def num_visible_curves():
        return sum(width > 0 for _, _, width, _ in boxes(browser, "#figure-left .curve"))

    def click(kind, value):
        selector = f"#figure-left .legend [data-{kind}='{value}']"
        browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    open_page(browser, address, DESKTOP)
    assert num_visible_curves() == 6
    click("group", "0")
    assert num_visible_curves() == 3
    click("style", "thin")
    assert num_visible_curves() == 2
    move_pointer(browser, "#figure-left .plot", 0.5, 0.99)
    assert tip_text(browser).startswith("plain-56, training")
    click("group", "0")
    click("style", "thin")
    assert num_visible_curves() == 6


def test_hostile_names_of_folders_and_classes_run_no_script(
    browser, tmp_path, make_pictures, reslearn
):
    """The pages of a run and of a study whose names hold scripts, quotes and escape sequences."""
    attack = "document.title=`broken`"
    image = f"<img src=x onerror='{attack}'>\x1b[31m\u202e"
    classes = (f"\"'><script>{attack}<", image, "green")
    pictures = make_pictures(tmp_path / f"<script>{attack}<" / f"script>{image}", **PICTURES)
    for class_folder in [*pictures.glob("*/blue"), *pictures.glob("*/red")]:
        class_folder.rename(class_folder.with_name(classes[class_folder.name == "red"]))
    study = tmp_path / f"study \"'><script>{attack}<" / f"script>{image}"
    run = study / f"run{image}"
    options = ["--recipe", "digits", "--model", "resnet8", "--epochs", "4", "-b", "9"]
    command = ["train", pictures, *options, "--set", "data.size_px=16", "--out", run]
    status, _, errors = reslearn(*command)
    assert status == 0, errors
    for folder in (run, study):
        status, output, errors = reslearn("report", folder)
        assert (status, errors) == (0, "")
        assert "\x1b" not in output and "\u202e" not in output
        browser.get_log("browser")
        open_page(browser, (folder / "report.html").as_uri(), DESKTOP)
        assert browser.title != "broken"
        assert "<img src=x onerror" in browser.title  # the name is shown as text
        assert "<img src=x onerror" in browser.execute_script("return document.body.innerText")
        assert boxes(browser, "img[src=x], [onerror]") == []
        assert browser.get_log("browser") == []
