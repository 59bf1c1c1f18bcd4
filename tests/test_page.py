"""The page of a comparison, in a real browser: Debian's chromium, driven through chromedriver."""

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.report.compare import COLUMNS, Comparison, compare
from zoo.report.plots import family_styles

NAMES = ("resnet18", "squeezenet1_1", "mobilenet_v1_025", "vgg11")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --disable-default-apps --disable-dev-shm-usage"
)
SECONDS = 30  # for the browser to start or to answer, at most


@dataclass
class Browser:
    """One session of the WebDriver protocol (https://www.w3.org/TR/webdriver2/): JSON over HTTP."""

    address: str
    session: str = ""

    def ask(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        url = f"{self.address}/session{self.session}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        request.get_method = lambda: method
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this host
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(
                f"{method} {path}: {json.load(error)['value']['message']}"
            ) from None

    def run(self, script: str, *args: Any) -> Any:
        """What a function body returns in the page."""
        return self.ask("POST", "/execute/sync", script=script, args=args)

    def see(self, want: Any, *scripts: str) -> None:
        """What each script returns is, or soon will be, what is wanted: input takes a moment."""
        end = time.monotonic() + SECONDS
        while (got := [self.run(script) for script in scripts]) != [want] * len(scripts):
            assert time.monotonic() < end, got
            time.sleep(0.05)

    def find(self, selector: str) -> str:
        self.see(True, f"return document.querySelector({json.dumps(selector)}) !== null")
        found = self.ask("POST", "/element", using="css selector", value=selector)
        return next(iter(found.values()))

    def click(self, selector: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/value", text=text)

    def hover(self, selector: str) -> None:
        """Move the pointer onto an element, where it has been scrolled into view."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        origin = {"element-6066-11e4-a52e-4f735466cecf": self.find(selector)}
        move = {"type": "pointerMove", "duration": 0, "origin": origin, "x": 0, "y": 0}
        pointer = {"type": "pointer", "id": "mouse", "actions": [move]}
        self.ask("POST", "/actions", actions=[pointer])

    def resize(self, width: int, height: int) -> None:
        """The inside of the window, in pixels: narrower than a window may be, too."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def command(self, name: str, **params: Any) -> Any:
        """One of the DevTools protocol."""
        return self.ask("POST", "/goog/cdp/execute", cmd=name, params=params)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.ask("POST", "/se/log", type=kind)

    def screenshot(self, path: Path) -> Image.Image:
        data = base64.b64decode(self.ask("GET", "/screenshot"))
        path.write_bytes(data)
        return Image.open(io.BytesIO(data)).convert("RGB")


def start(folder: Path) -> Iterator[Browser]:
    """A browser whose files are in `folder`, until the generator goes on."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    log = folder / "driver.log"
    with (
        log.open("wb") as out,
        subprocess.Popen([driver, "--port=0"], stdout=out, stderr=out) as process,
    ):
        try:
            browser = Browser(f"http://127.0.0.1:{_port(log, process)}")
            options = {
                "binary": chromium,
                "args": [*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"],
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            }
            opened = browser.ask("POST", "", capabilities={"alwaysMatch": wanted})
            browser.session = f"/{opened['sessionId']}"
            yield browser
            browser.ask("DELETE", "")
        finally:
            process.terminate()


def _port(log: Path, process: subprocess.Popen) -> str:
    """The port that chromedriver chose, which it writes to its log."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        _, found, rest = log.read_text().partition("started successfully on port ")
        if found and "." in rest:
            return rest.partition(".")[0]
        time.sleep(0.05)
    raise AssertionError(f"chromedriver did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from start(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(NAMES)


@pytest.fixture
def page(browser: Browser, comparison: Comparison, tmp_path: Path) -> Browser:
    """The browser with the page opened afresh, 1280 pixels wide, in light colours."""
    file = tmp_path / "compare.html"
    file.write_text(comparison.html(), "utf-8")
    light = [{"name": "prefers-color-scheme", "value": "light"}]
    browser.command("Emulation.setEmulatedMedia", features=light)
    browser.resize(1280, 900)
    for kind in ("performance", "browser"):
        browser.log(kind)  # what came before is dropped
    browser.ask("POST", "/url", url=file.as_uri())
    return browser


NAMES_SHOWN = (
    "return [...document.querySelectorAll('#table tbody tr')].map(r => r.cells[0].innerText)"
)
DRAWN = "return [...document.querySelectorAll('.dot[data-name]')].map(d => d.dataset.name)"
SHOWN = "return document.querySelector('#shown').innerText"
BARS = "return [...document.querySelectorAll('#bars .name')].map(e => e.textContent)"


def by(comparison: Comparison, key: Any) -> list[str]:
    return [entry.name for entry in sorted(comparison.entries, key=key)]


def test_first_sight(page, comparison):
    assert page.ask("GET", "/title") == "Convolutional networks compared"
    assert page.run(NAMES_SHOWN) == page.run(BARS) == list(NAMES)
    # no accuracy is published for the default weights of MobileNet v1 0.25
    assert sorted(page.run(DRAWN)) == sorted(e.name for e in comparison.entries if e.top1)
    row = page.run(
        "return [...document.querySelector('#table tbody tr').cells].map(c => c.innerText)"
    )
    count = comparison.entries[0].count
    assert row[:3] == ["resnet18", "resnet", f"{count.params / 1e6:.2f}"]
    assert f"{count.macs / 1e9:.3f}" in row
    assert "69.76" in row
    assert row[-1] == "2015"
    assert "1 without this figure" in page.run("return document.querySelector('#hint').innerText")


def test_sorted_by_clicks_and_keys(page, comparison):
    click = "th[data-key=params] button"
    order = by(comparison, lambda e: e.count.params)
    page.click(click)
    page.see(order, NAMES_SHOWN)
    sort = "return document.querySelector('th[data-key=params]').ariaSort"
    page.see("ascending", sort)
    page.type(click, "\ue007")  # Enter
    page.see(order[::-1], NAMES_SHOWN, BARS)
    page.see("descending", sort)
    page.click("th[data-key=name] button")
    page.see(sorted(NAMES), NAMES_SHOWN)
    last = "return [...document.querySelectorAll('#table tbody tr')].at(-1).cells[0].innerText"
    best = "return document.querySelector('#table tbody tr').cells[0].innerText"
    for first in ("squeezenet1_1", "resnet18"):
        page.click("th[data-key=top1] button")
        page.see(first, best)
        page.see("mobilenet_v1_025", last)  # what has no value comes last, whichever way


def test_filtered(page):
    page.type("#text", "net18")
    page.see(["resnet18"], NAMES_SHOWN, BARS, DRAWN)
    page.see("1 of 4 networks", "return document.querySelector('#shown').innerText")
    page.click("button[type=reset]")
    page.see(list(NAMES), NAMES_SHOWN)
    page.type("#least", "1")
    page.type("#most", "20")
    page.see(["resnet18", "squeezenet1_1"], NAMES_SHOWN, DRAWN)
    page.click("button[type=reset]")
    page.click("button[data-family=vgg]")
    page.see(["vgg11"], NAMES_SHOWN)
    page.type("#text", "resnet")  # and nothing is both
    page.see([], NAMES_SHOWN, BARS, DRAWN)
    assert "Nothing to draw" in page.run("return document.querySelector('#scatter').textContent")


def test_all_published_weights(page):
    choose = "const s = document.querySelector('#set'); s.value = arguments[0];"
    choose += "s.dispatchEvent(new Event('change'))"
    page.run(choose, "weights")
    records = [zoo.weights(w) for name in NAMES for w in zoo.list_weights(f"{name}.*")]
    tags = "return [...document.querySelectorAll('#table tbody tr')].map(r => "
    tags += "r.cells[0].innerText + '.' + r.querySelector('td.wrapped').innerText)"
    page.see([w.name for w in records], tags)
    assert sorted(page.run(DRAWN)) == sorted(w.name for w in records if w.top1 is not None)
    assert page.run(BARS) == list(NAMES)  # a network once
    page.see(f"{len(records)} of {len(records)} weights", SHOWN)
    page.type("#top1", "70")
    best = [w.name for w in records if (w.top1 or 0) >= 70]
    page.see(best, tags)
    page.click("button[type=reset]")
    page.see(list(NAMES), NAMES_SHOWN)


def test_any_two_columns(page):
    keys = [c.key for c in COLUMNS if not c.left]
    shown = {"head_share": "head"}
    for axis in ("x", "y"):
        options = page.run(
            f"return [...document.querySelector('#{axis}').options].map(o => o.value)"
        )
        assert sorted(options) == sorted(shown.get(key, key) for key in keys)
    page.run("const x = document.querySelector('#x'); x.value = 'input_size';"
             "x.dispatchEvent(new Event('change'))")  # fmt: skip
    assert len(page.run(DRAWN)) == 3


def test_the_files_have_every_column_of_the_page(page, comparison):
    heads = page.run("return [...document.querySelectorAll('#table th')].map(t => t.dataset.key)")
    names = {"name": "network", "head": "head_share"}
    want = sorted(names.get(key, key) for key in heads)
    for table in (comparison.table(), comparison.weights_table()):
        assert sorted(table.csv().splitlines()[0].split(",")) == want
    rows = comparison.weights_table().records()
    assert [row["weights"] for row in rows] == [w.name for w in comparison.weights]


def test_marks_are_those_of_the_picture(page, comparison):
    drawn = "const d = document.querySelector('.dot[data-name=' + arguments[0] + ']');"
    drawn += "return [d.getAttribute('d').match(/[a-z]/g).join(''), getComputedStyle(d).fill]"
    edges = {"o": "aa", "s": "hvh"}  # the curves or lines of its path; the others have capitals
    for entry in comparison.entries:
        if entry.top1 is None:
            continue
        marker, colour = family_styles(comparison.entries)[entry.variant.family]
        path, fill = page.run(drawn, entry.name)
        assert path == edges.get(marker, "")
        assert fill == "rgb({}, {}, {})".format(*bytes.fromhex(colour[1:]))


def test_names_break_between_words_alone(page):
    page.resize(390, 900)
    broken = page.run(
        "return [...document.querySelectorAll('#table td:first-child, #bars .name, #tip strong')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 ||"
        " getComputedStyle(e).textOverflow === 'ellipsis').map(e => e.innerText)"
    )
    assert broken == []
    ends = page.run(
        "return [...document.querySelectorAll('#table td:first-child, #bars .name')].flatMap(e => {"
        "const r = document.createRange(), ends = []; let last = null;"
        "for (const t of e.childNodes) for (let i = 0; i < (t.length || 0); i++) {"
        " r.setStart(t, i); r.setEnd(t, i + 1); const y = r.getBoundingClientRect().top;"
        " if (last && y > last.y + 4) ends.push(last.c); last = { y, c: t.data[i] }; }"
        "return ends })"
    )
    assert set(ends) <= {"_"}


NAMED = (
    "const t = document.querySelector('#tip');return t.hidden ? null : t.innerText.split(/\\s/)[0]"
)
FOCUSED = "return document.activeElement.dataset.name"


def test_hovered_and_focused(page, comparison):
    entry = comparison.entries[0]
    tip = "const t = document.querySelector('#tip'); return t.hidden ? null : t.innerText"
    assert page.run(tip) is None
    page.hover(".dot[data-name=resnet18]")
    page.see("resnet18", NAMED)
    text = page.run(tip)
    assert f"{entry.count.params / 1e6:.2f} M" in text
    assert f"{entry.count.macs / 1e9:.3f} G" in text
    assert "69.76 %" in text
    link = page.run("return document.querySelector('#tip a').href")
    assert link == entry.variant.paper.url
    page.run("document.querySelector('.dot[tabindex=\"0\"]').focus()")
    (first,) = (n for n in NAMES if n == page.run(FOCUSED))
    page.see(first, NAMED)
    page.type(".dot:focus", "\ue014")  # right arrow
    page.see(False, f"{FOCUSED} === '{first}'")
    (second,) = (n for n in NAMES if n == page.run(FOCUSED))
    page.see(second, NAMED)
    page.type(".dot:focus", "\ue00c")  # Escape
    page.see(None, tip)


def test_axes(page, comparison):
    height = "return Object.fromEntries([...document.querySelectorAll('.dot[data-name]')].map("
    height += "d => [d.dataset.name, -d.transform.baseVal[0].matrix.f]))"
    for key, value in (
        ("training_memory", lambda e: e.count.training_memory),
        ("params", lambda e: e.count.params),
    ):
        choose = "const y = document.querySelector('#y'); y.value = arguments[0];"
        choose += "y.dispatchEvent(new Event('change'))"
        page.run(choose, key)
        linear = page.run(height)
        assert sorted(linear, key=linear.get) == by(comparison, value)
    page.click("#logy")
    logarithmic = page.run(height)
    assert sorted(logarithmic, key=logarithmic.get) == by(comparison, lambda e: e.count.params)
    assert logarithmic != linear
    assert page.run("return document.querySelector('#logy').disabled") is False
    page.run(choose, "top1")
    assert page.run("return document.querySelector('#logy').disabled") is True


def test_dark_and_light(page, tmp_path):
    def brightness() -> float:
        return float(np.asarray(page.screenshot(tmp_path / "screen.png"))[:8].mean())

    assert brightness() > 200
    page.click("#theme")
    assert brightness() < 60
    assert page.run("return document.querySelector('#theme').innerText") == "Light"
    page.click("#theme")
    assert brightness() > 200
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.ask("POST", "/refresh")
    page.command("Emulation.setEmulatedMedia", features=dark)
    assert brightness() < 60


@pytest.mark.parametrize("width", [1280, 390])
def test_no_sideways_scrolling(page, width, tmp_path):
    page.resize(width, 900)
    page.hover(".dot[data-name=vgg11]")  # the tooltip fits, too
    wide = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth, innerWidth]"
    assert page.run(wide) == [width] * 3
    assert page.screenshot(tmp_path / f"{width}.png").size == (width, 900)
    outside = page.run(
        "return [...document.querySelectorAll('body *:not(.box *)')].filter(e => {"
        "const r = e.getBoundingClientRect();"
        "return r.width && (r.left < -1 || r.right > innerWidth + 1)})"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_nothing_is_asked_for_and_nothing_fails(page):
    page.hover(".dot[data-name=resnet18]")
    page.type("#text", "resnet")
    page.click("th[data-key=macs] button")
    events = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    here = page.ask("GET", "/url")
    assert here.startswith("file://")
    assert here in asked  # the log sees requests
    assert asked <= {here, "data:,"}
    assert page.run("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert page.log("browser") == []
