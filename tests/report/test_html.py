"""The page: what it says, in Python; how it behaves, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.report import load_document, write_reports

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        hint = "no Chromium on the PATH; install it (Debian: apt-get install chromium)"
        if os.environ.get("FLUXPERF_REQUIRE_BROWSER"):
            pytest.fail(hint, pytrace=False)
        pytest.skip(hint)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """``runs(name) -> Path`` of a written report of one of the example documents."""
    made: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = write_reports(getattr(documents, name)(folder), folder).html
        return made[name]

    return write


@pytest.fixture
def open_page(browser, runs):
    """Opens a report; the test fails on a console error or a request that leaves the file."""
    complaints: list[str] = []
    pages = []

    def open_one(name: str, *, width: int = 1280, dark: bool = False, fragment: str = ""):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: complaints.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto(f"file://{runs(name)}{fragment}")
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert complaints == []


def verdicts(page) -> list[str]:
    return page.eval_on_selector_all("#tests tbody tr:not([hidden])", "rows => rows.map(row => row.cells[0].innerText)")


@pytest.mark.parametrize("name", ["passing", "failing", "broken", "ungated", "hostile"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_readable_at_any_width_in_light_and_dark(open_page, name, width, dark):
    page = open_page(name, width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness < 60) == dark
    assert page.locator("h1").inner_text()


def test_first_screen_says_the_verdict_and_the_environment(open_page):
    page = open_page("failing")
    assert re.match(r"2 of 16 regressed: torch 2\.11\.0 → 2\.13\.0", page.locator("h1").inner_text())
    assert "gated 16 of 18" in page.locator(".counts").inner_text()
    assert page.locator("section[aria-label=Environment] b").first.inner_text() == "torch"
    assert page.locator("svg.plot title").first.evaluate("node => node.textContent").startswith("Speed against")


def test_a_run_that_gated_nothing_says_so_loudly(open_page):
    assert "Nothing was gated" in open_page("ungated").locator(".alarm").first.inner_text()


def test_the_worst_stands_first_and_any_column_sorts(open_page):
    page = open_page("failing")
    assert verdicts(page)[:4] == ["regressed", "regressed", "inconclusive", "improved"]
    heading = page.locator("#tests th", has_text="p50 s")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    column = "rows => rows.map(row => parseFloat(row.cells[2].innerText))"
    values = page.eval_on_selector_all("#tests tbody tr", column)
    assert values == sorted(values)
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.eval_on_selector_all("#tests tbody tr", column) == sorted(values, reverse=True)


def test_filters_by_verdict_family_and_text(open_page):
    page = open_page("failing")
    page.select_option("#verdict", "regressed")
    assert set(verdicts(page)) == {"regressed"}
    assert page.locator("#shown").inner_text() == "2 of 16 shown"
    page.select_option("#verdict", "")
    page.select_option("#family", "fbcache")
    assert 0 < len(verdicts(page)) < 16
    page.select_option("#family", "")
    page.fill("#search", "teacache 0.4")
    assert len(verdicts(page)) == 1
    assert page.locator("details.test:not([hidden])").count() == 1


def test_a_deep_link_opens_its_test(open_page, runs):
    anchor = re.search(r'<details class="test" id="([^"]+)"[^>]*data-verdict="passed"', runs("failing").read_text())[1]
    page = open_page("failing", fragment=f"#{anchor}")
    assert page.locator(f"details[id='{anchor}']").get_attribute("open") is not None


def test_slider_theme_and_pictures(open_page):
    page = open_page("failing")
    test = page.locator("details.test").first
    assert test.locator(".trio").count() == 8
    width = page.evaluate("() => new Promise(done => { const style = getComputedStyle(document.querySelector('a.pic'));"
                          " const image = new Image(); image.onload = () => done(image.naturalWidth);"
                          " image.src = style.backgroundImage.slice(5, -2); })")  # fmt: skip
    assert width > 0
    shot = test.locator("figure").first
    shot.locator("summary", has_text="compare").click()
    shot.locator("input.compare").fill("20")
    assert shot.locator(".over").evaluate("node => node.style.getPropertyValue('--cut')") == "20%"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_without_scripts_everything_is_still_there(browser, runs):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{runs('failing')}")
    assert page.locator("#tests tbody tr").count() == 16
    assert page.locator("a.pic").count() > 100
    context.close()


def test_hostile_prompts_stay_text(open_page, runs):
    page = open_page("hostile")
    assert page.evaluate("window.hacked === undefined")
    html = runs("hostile").read_text()
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    assert page.locator("script").count() == 1


def test_missing_and_damaged_pictures_are_stated(tmp_path):
    document = documents.failing(tmp_path)
    found = sorted((tmp_path).rglob("*.png"))
    found[0].unlink()
    found[1].write_bytes(b"not a picture")
    assert write_reports(document, tmp_path).html.read_text().count("missing</div>") >= 2


def test_forty_tests_of_eight_prompts_stay_under_ten_mebibytes(tmp_path):
    paths = write_reports(documents.many(40, tmp_path), tmp_path)
    assert paths.html.stat().st_size < 10 * 2**20
    assert load_document(paths.results).collected == 40


def test_the_page_says_what_the_document_says_and_nothing_else_is_read(runs):
    html = runs("passing").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "default-src 'none'" in html
