"""The page of `reslearn serve` in a real browser: chosen, dropped and pasted photos, and keys."""

import base64
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reslearn.deploy import Predictor
from reslearn.deploy.server import serving
from reslearn.deploy.server_app import ModelServer

sys.path.insert(0, str(Path(__file__).parent))
from served import picture

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)

FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
SECONDS = 30
# Give the page a file as a drop or a paste does. Browsers do not let a script move a real file.
GIVE = """
const bytes = Uint8Array.from(atob(arguments[1]), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
const event = arguments[0] === "drop"
  ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
  : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
document.getElementById("drop").dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle)


@pytest.fixture(scope="module")
def address(predictor: Predictor) -> Iterator[str]:
    with serving(ModelServer({"cats": predictor, "dogs": predictor}, token=None)) as address:
        yield address


def open_page(browser: Any, address: str, width: int = 1280, height: int = 800) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)
    wait(browser, lambda: "resnet8 tells 3 classes apart" in text(browser, "about"))


def wait(browser: Any, condition: Any) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.02)


def text(browser: Any, name: str) -> str:
    return str(browser.find_element("id", name).text)


def expect_answer(browser: Any, predictor: Predictor, content: bytes) -> None:
    (prediction,) = predictor([content])
    percent = f"{100 * prediction.probability:.1f} %"
    wait(browser, lambda: text(browser, "answer") == f"{prediction.label}, {percent}")
    rows = browser.find_elements("css selector", "#classes li")
    assert len(rows) == 3
    assert f"The answer is {prediction.label} with {percent}." == text(browser, "status")


@pytest.mark.parametrize("name", ["file", "camera"])
def test_a_chosen_photo_is_answered_with_a_heat_map(
    browser: Any, address: str, predictor: Predictor, tmp_path: Path, name: str
) -> None:
    open_page(browser, address)
    path = tmp_path / "photo.png"
    path.write_bytes(picture(3))
    entry = browser.find_element("id", name)
    assert (entry.get_attribute("capture") is not None) == (name == "camera")
    entry.send_keys(str(path))
    expect_answer(browser, predictor, picture(3))
    wait(browser, lambda: browser.find_element("id", "heat-map").is_displayed())
    for image in ("photo", "heat-map"):
        width = browser.execute_script(
            "return document.getElementById(arguments[0]).naturalWidth", image
        )
        assert width > 0, image
    if "SCREENSHOTS" in os.environ:
        browser.save_screenshot(f"{os.environ['SCREENSHOTS']}/{name}.png")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(
    browser: Any, address: str, predictor: Predictor, way: str
) -> None:
    open_page(browser, address)
    browser.execute_script(GIVE, way, base64.b64encode(picture(4)).decode())
    expect_answer(browser, predictor, picture(4))


def test_a_photo_that_the_browser_cannot_show_is_hidden(
    browser: Any, address: str, predictor: Predictor, tmp_path: Path
) -> None:
    open_page(browser, address)
    path = tmp_path / "photo.tif"
    path.write_bytes(picture(5, "TIFF"))
    browser.find_element("id", "file").send_keys(str(path))
    expect_answer(browser, predictor, picture(5))
    wait(browser, lambda: not browser.find_element("id", "photo").is_displayed())
    assert browser.find_element("id", "heat-map").is_displayed()
    assert text(browser, "name") == "photo.tif"


def test_what_is_no_photo_is_said_in_words(browser: Any, address: str, tmp_path: Path) -> None:
    open_page(browser, address)
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    browser.find_element("id", "file").send_keys(str(path))
    wait(browser, lambda: text(browser, "status").startswith("No answer: notes.txt cannot be read"))
    assert not browser.find_element("id", "result").is_displayed()


def test_the_keyboard_reaches_everything(browser: Any, address: str) -> None:
    open_page(browser, address)
    reached = []
    for _ in range(4):
        webdriver.ActionChains(browser).send_keys(webdriver.Keys.TAB).perform()
        element = browser.switch_to.active_element
        reached.append(element.get_attribute("id"))
        outline = browser.execute_script(
            "const e = arguments[0]; const box = e.closest('.button') || e;"
            "return getComputedStyle(box).outlineStyle",
            element,
        )
        assert outline == "solid" or element.get_attribute("type") == "checkbox"
    assert reached == ["file", "camera", "model", "heat"]


def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Any, address: str, predictor: Predictor
) -> None:
    open_page(browser, address, 390, 844)
    browser.execute_script(GIVE, "drop", base64.b64encode(picture(4)).decode())
    expect_answer(browser, predictor, picture(4))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    if "SCREENSHOTS" in os.environ:
        browser.save_screenshot(f"{os.environ['SCREENSHOTS']}/phone.png")


def test_the_page_asks_for_the_token(browser: Any, predictor: Predictor) -> None:
    with serving(ModelServer({"model": predictor}, token="abc")) as address:
        browser.get(address)
        wait(browser, lambda: browser.find_element("id", "token").is_displayed())
        browser.find_element("id", "token").send_keys("abc", webdriver.Keys.TAB)
        wait(browser, lambda: text(browser, "status") == "The token is accepted.")
        browser.execute_script(GIVE, "drop", base64.b64encode(picture(5)).decode())
        expect_answer(browser, predictor, picture(5))
