"""The page: what it says, in Python; how it behaves, in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from html import unescape
from pathlib import Path

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.report import load_document, write_reports
from pytest_fluxperf.report.html import thumbnails
from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.results import Block, Comparison

ROOT = Path(__file__).parents[2]
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


def two_machines(folder: Path) -> str:
    """The page of an upgrade on one GPU beside an unchanged run on another."""
    other = msgspec.structs.replace(documents.passing(folder), gpu="l40s", hardware=documents.L40S)
    return render_html([documents.failing(folder), other], [folder])


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """``runs(name) -> Path`` of a written report of one of the example documents."""
    made: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            if name == "two":
                made[name] = folder / "report.html"
                made[name].write_text(two_machines(folder))
            elif name == "alone":
                made[name] = folder / "report.html"
                made[name].write_text(render_html(documents.failing(folder), [folder], full_size=False))
            elif name == "sample":
                made[name] = ROOT / "reports" / "sample" / "report.html"
            else:
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
    return page.eval_on_selector_all("#tests tbody tr:not([hidden])", "rows => rows.map(row => row.dataset.verdict)")


# what it says


@pytest.mark.parametrize("name", ["passing", "failing", "compared", "broken", "ungated", "hostile", "two"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_readable_at_any_width_in_light_and_dark(open_page, name, width, dark):
    page = open_page(name, width=width, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness < 60) == dark
    assert page.locator("h1").inner_text()


def test_first_screen_says_the_verdict_its_cause_and_the_environment(open_page):
    page = open_page("failing")
    assert page.locator("h1").inner_text() == (
        "2 of 16 regressed: torch 2.11.0 → 2.13.0 made bf16+fbcache:0.3 6.2 % slower: 5 more computed steps per image."
    )
    assert "gated 16 of 18" in page.locator(".counts").inner_text()
    environment = page.locator("section[aria-labelledby=environment-title]")
    assert environment.locator("b").all_inner_texts() == ["torch"]
    assert "with torch" in environment.locator("tr", has_text="triton").inner_text()
    assert "NVIDIA H100 80GB HBM3" in page.locator("section[aria-label^=Hardware]").inner_text()
    for selector in ("h1", ".counts", "svg.plot", "section[aria-label^=Hardware]"):
        assert page.locator(selector).first.bounding_box()["y"] < 900, selector


def test_the_scatter_shows_now_the_baseline_and_what_is_published(open_page):
    page = open_page("failing")
    titles = page.eval_on_selector_all("section svg.plot g title", "nodes => nodes.map(node => node.textContent)")
    assert any(re.match(r"bf16\+fbcache:0\.3: 2\.\d+ s, LPIPS", title) for title in titles)
    assert any(title.startswith("bf16+fbcache:0.3, baseline: ") for title in titles)
    published = [title for title in titles if title.startswith("published: ")]
    title = "BenchmarkFlux: Flux Text To Image Fast Inference Experimentation (2025-04)"
    assert f"published: BF16 on h100, {title}, 7.090 s" in published
    assert all(" on h100," in title for title in published)
    page.locator("details.published summary").click()
    table = page.locator("details.published table")
    assert table.locator("tbody tr").count() >= 40
    assert table.locator("tr", has_text="diffusers SDPA + compile").locator("td").nth(3).inner_text() == "4.320"


def test_a_point_of_the_scatter_leads_to_its_test(open_page):
    page = open_page("failing")
    page.locator("svg.plot g[data-open]").first.dispatch_event("click")
    anchor = page.locator("svg.plot g[data-open]").first.get_attribute("data-open")
    assert page.locator(f"details[id='{anchor}']").get_attribute("open") is not None


def test_a_run_that_gated_nothing_says_so_loudly(open_page):
    assert "Nothing was gated" in open_page("ungated").locator(".alarm").first.inner_text()


def test_a_test_shows_all_that_is_known_of_it(open_page):
    page = open_page("failing")
    test = page.locator("details.test").first
    assert test.get_attribute("open") is not None
    headings = test.locator("h4").all_inner_texts()
    assert headings == [
        "Why", "Every prompt against its baseline", "Phases, median seconds", "The baseline's runs, and now",
        "Denoising steps of every prompt", "Pictures against bf16", "Findings",
    ]  # fmt: skip
    assert test.locator(".why li").first.inner_text() == "5 more computed steps per image"
    paired = test.locator("svg.plot desc").first.evaluate("node => node.textContent")
    assert re.search(r"prompt 8 \+\d\.\d %; judged \+6\.2 %, interval \+5\.3 % to \+7\.1 %; tolerance ±2\.0 %", paired)
    assert test.locator(".bar").count() == 2
    strip = test.locator("svg.steps").first
    assert strip.get_attribute("aria-label") == "prompt 1: 17 of 28 steps computed, baseline 12 of 28"
    computed = strip.locator("path.now").get_attribute("d")
    assert sum(int(run) for run in re.findall(r"h(\d+)", computed)) == 17
    history = test.locator("svg.plot").nth(1).locator("desc").evaluate("node => node.textContent")
    assert history.count(" s") == 4  # three runs and now
    test.locator("summary", has_text="Every prompt in numbers").click()
    assert test.locator("table", has_text="baseline s").locator("tbody tr").count() == 8
    test.locator("summary", has_text="What was really used").click()
    moved = test.locator(".used tr.moved")
    assert moved.all_inner_texts() == ["attention\tsdpa:efficient\tsdpa:flash"]


@pytest.mark.parametrize("width", [1280, 400])
def test_comparison_and_kernels_can_be_read_at_any_width(open_page, width):
    page = open_page("compared", width=width)
    page.add_style_tag(
        content="details.test { content-visibility: visible !important; }"
    )  # what is not drawn has no text
    page.locator("details.test", has=page.locator("section.kernels")).evaluate("node => { node.open = true; }")
    turns = page.get_by_role("group", name="Old and new environment in turns")
    assert turns.locator("tbody tr").all_inner_texts()[1].split() == ["2", "+6.0", "%", "2.055", "2.178", "4"]
    kernels = page.get_by_role("group", name="Kernels against the baseline")
    rows = [row.split("\t") for row in kernels.locator("tbody tr").all_inner_texts()]
    assert [row[1] for row in rows] == ["-391.20", "+483.30", "+21.10", "+2.10", "+4.20", "+3.10", "+122.60"]
    assert [row[2] for row in rows[:3]] == ["vanished", "appeared", "got slower"]
    # what changed by how much is in sight without scrolling, the rest by the arrow keys
    cell = kernels.locator("tbody tr").nth(1).locator("td").first
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    assert box["x"] + box["width"] <= width
    kernels.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    room = kernels.evaluate("node => node.scrollWidth - node.clientWidth")
    assert room == 0 or kernels.evaluate("node => node.scrollLeft") > 0
    more = page.locator("section.kernels details")
    more.locator("summary").press("Enter")
    assert more.get_attribute("open") is not None
    assert more.locator("tbody tr").first.inner_text().split() == ["nvjet_hsh_gemm", "1881", "1123.10"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_machines_stand_side_by_side(open_page):
    page = open_page("two")
    heads = page.locator("#machines thead tr").first.locator("th").all_inner_texts()
    assert heads == ["recipe", "h100", "l40s"]
    line = page.locator("#machines tbody tr", has=page.get_by_text("bf16+fbcache:0.3", exact=True))
    cells = line.locator("td").all_inner_texts()
    assert cells[0] == "regressed"
    assert float(cells[6].rstrip("×")) == pytest.approx(float(cells[4]) / float(cells[1]), abs=0.01)
    page.select_option("#machine", "l40s")
    assert page.locator("#shown").inner_text() == "16 of 32 shown"
    assert page.locator("h1").inner_text().startswith("2 of 32 regressed: torch 2.11.0 → 2.13.0 made")


# its controls


def test_the_worst_stands_first_and_every_column_sorts(open_page):
    page = open_page("failing")
    assert verdicts(page)[:4] == ["regressed", "regressed", "inconclusive", "improved"]
    headings = page.locator("#tests th")
    column = "(rows, i) => rows.map(row => row.cells[i].dataset.v ?? row.cells[i].innerText.trim())"
    for i in range(headings.count()):
        headings.nth(i).locator("button").click()
        assert headings.nth(i).get_attribute("aria-sort") == "ascending"
        up = page.eval_on_selector_all("#tests tbody tr", column, i)
        known = [value for value in up if value != "–"]
        assert up == known + ["–"] * (len(up) - len(known))
        numbers = [float(m[0]) for value in known if (m := re.match(r"[-+]?\d+(\.\d+)?", value))]
        if len(numbers) == len(known):
            assert numbers == sorted(numbers)
        headings.nth(i).locator("button").press("Enter")
        assert headings.nth(i).get_attribute("aria-sort") == "descending"
        down = page.eval_on_selector_all("#tests tbody tr", column, i)
        assert sorted(down) == sorted(up)
        if len(numbers) == len(known):
            assert [float(re.match(r"[-+]?\d+(\.\d+)?", value)[0]) for value in down[: len(known)]] == numbers[::-1]
    assert page.locator("#tests th[aria-sort]").count() == 1


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


def test_a_deep_link_opens_its_test_also_a_filtered_one(open_page, runs):
    anchor = re.search(r'<details class="test" id="([^"]+)"[^>]*data-verdict="passed"', runs("failing").read_text())[1]
    page = open_page("failing", fragment=f"#{anchor}")
    test = page.locator(f"details[id='{anchor}']")
    assert test.get_attribute("open") is not None
    assert test.bounding_box()["y"] < 900
    test.locator("summary").first.click()
    page.select_option("#verdict", "regressed")
    assert test.is_hidden()
    page.evaluate("location.hash = ''")
    page.evaluate(f"location.hash = '{anchor}'")
    test.wait_for()
    assert test.get_attribute("open") is not None


def test_opening_a_test_puts_its_link_into_the_address(open_page):
    page = open_page("failing")
    test = page.locator("details.test").nth(2)
    test.locator("summary").first.click()
    assert page.url.endswith(f"#{test.get_attribute('id')}")


def test_keys_reach_the_filter_and_the_tests(open_page):
    page = open_page("failing")
    focused = "document.activeElement.closest('details.test')?.id ?? document.activeElement.id"
    ids = page.eval_on_selector_all("details.test", "nodes => nodes.map(node => node.id)")
    page.keyboard.press("j")
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("j")
    assert page.evaluate(focused) == ids[1]
    page.keyboard.press("Enter")
    assert page.locator("details.test").nth(1).get_attribute("open") is not None
    page.keyboard.press("k")
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("/")
    page.keyboard.type("jk/")
    assert page.locator("#search").input_value() == "jk/"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_everything_can_be_reached_by_tab(open_page):
    page = open_page("failing")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"theme", "search", "verdict", "family", "BUTTON", "A"} <= seen


def test_the_theme_can_be_turned(open_page):
    page = open_page("failing")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != before
    page.click("#theme")
    assert page.evaluate(colour) == before


def test_the_viewer_slides_zooms_and_turns_the_pages(open_page):
    page = open_page("failing")
    test = page.locator("details.test").first
    assert test.locator(".trio").count() == 8
    width = page.evaluate("() => new Promise(done => { const style = getComputedStyle(document.querySelector('a.pic'));"
                          " const image = new Image(); image.onload = () => done(image.naturalWidth);"
                          " image.src = style.backgroundImage.slice(5, -2); })")  # fmt: skip
    assert width > 0
    test.locator("a.pic[data-kind=now]").nth(2).click()
    viewer, stage, moving = page.locator("#viewer"), page.locator(".stage"), page.locator(".moving")
    assert viewer.is_visible()
    assert page.locator("#viewer-title").inner_text() == "bf16+fbcache:0.3: prompt 3 of 8"
    assert "SSIM 0." in page.locator("#viewer-caption").inner_text()
    shown = "name => getComputedStyle(document.querySelector(`[data-layer=${name}]`)).backgroundImage.length > 100"
    assert all(page.evaluate(shown, name) for name in ("reference", "now", "flip"))
    cut = "getComputedStyle(document.querySelector('[data-layer=now]')).clipPath"
    page.locator("#cut").fill("20")
    assert page.evaluate(cut) == "inset(0px 0px 0px 20%)"
    page.locator("#zoom").fill("4")
    assert "scale(4)" in moving.get_attribute("style")
    assert page.evaluate(cut) == "inset(0px 0px 0px 42.5%)"  # the cut stays under the slider
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    before = moving.get_attribute("style")
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 130)
    page.mouse.up()
    assert moving.get_attribute("style") != before
    page.mouse.wheel(0, 400)
    assert float(re.search(r"scale\(([\d.]+)\)", moving.get_attribute("style"))[1]) < 4
    seen = "x => getComputedStyle(x).visibility === 'visible'"
    visible = f"() => [...document.querySelectorAll('.layer')].filter({seen}).map(x => x.dataset.layer)"
    assert page.evaluate(visible) == ["reference", "now"]
    for name in ("reference", "now", "flip"):
        page.locator(f"input[value={name}]").check()
        assert page.evaluate(visible) == [name]
        assert page.locator("#full").is_visible()
        assert page.locator("#full").get_attribute("href").endswith(".png")
    page.get_by_role("button", name="next").click()
    assert page.locator("#viewer-title").inner_text().endswith("prompt 4 of 8")
    assert page.evaluate(visible) == ["flip"]
    page.get_by_role("button", name="previous").click()
    page.get_by_role("button", name="Close").press("ArrowLeft")
    assert page.locator("#viewer-title").inner_text().endswith("prompt 2 of 8")
    page.keyboard.press("Escape")
    assert viewer.is_hidden()


def test_the_viewer_takes_what_is_there(open_page):
    page = open_page("passing")
    test = page.locator("details.test[data-families=bf16]")
    test.locator("summary").first.click()
    test.locator("a.pic[data-kind=now]").first.click()  # the reference recipe has no FLIP map
    assert page.locator("input[value=flip]").is_disabled()
    assert page.locator("input[value=slide]").is_checked()


def test_a_page_kept_without_its_pictures_links_to_none(open_page):
    page = open_page("alone")
    test = page.locator("details.test").first
    assert test.locator("a.pic").count() == 0
    test.locator("button.pic[data-kind=now]").nth(1).press("Enter")
    assert page.locator("#viewer-title").inner_text() == "bf16+fbcache:0.3: prompt 2 of 8"
    shown = "getComputedStyle(document.querySelector('[data-layer=now]')).backgroundImage.length > 100"
    assert page.evaluate(shown)
    for name in ("slide", "reference", "now", "flip"):
        page.locator(f"input[value={name}]").check()
        assert page.locator("#full").is_hidden()
    page.get_by_role("button", name="Close").click()
    assert page.url.endswith("report.html")


def test_a_run_without_pictures_has_no_empty_chart(open_page):
    page = open_page("sample")
    assert page.get_by_text("Speed against quality").count() == 0
    environment, hardware = (page.locator(f".grid .card >> nth={i}").bounding_box() for i in (0, 1))
    assert environment["y"] == hardware["y"], "side by side"
    assert environment["width"] + hardware["width"] > 1100
    narrow = open_page("sample", width=400)
    assert narrow.evaluate("document.documentElement.scrollWidth") == 400


def test_raw_values_are_copied(open_page):
    page = open_page("failing")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    test = page.locator("details.test").first
    test.locator("summary", has_text="Raw values").click()
    test.locator("button.copy").click()
    test.get_by_role("button", name="Copied").wait_for()
    values = json.loads(page.evaluate("navigator.clipboard.readText()"))
    (result,) = [r for r in documents.failing().results if r.test == values["test"]]
    assert [g["latency_s"] for g in values["generations"]] == [g.latency_s for g in result.measurement.generations]
    assert len(values["baseline"]) == 3


def test_printing_shows_every_test_and_no_control(open_page):
    page = open_page("failing", dark=True)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.test[open]").count() == 16
    assert not page.locator(".tools").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator(".trio").last.is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(24, 32, 42)"
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 between its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.test[open]").count() == 1
    assert page.evaluate("document.documentElement.dataset.theme === undefined")
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize(
    ("name", "dark"),
    [("failing", False), ("compared", True), ("compared", False), ("broken", True), ("two", False), ("alone", True)],
)
def test_axe_finds_nothing_serious(open_page, name, dark):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(name, dark=dark)
    # what is not drawn has no contrast to be judged; one test of each kind is enough
    page.add_style_tag(content="details.test { content-visibility: visible !important; }")
    page.evaluate("document.querySelectorAll('details.test:nth-of-type(n + 5)').forEach(node => node.remove())")
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    found = Axe().run(page).response
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    page.locator(".pic").first.click()
    found = Axe().run(page, "#viewer").response
    assert [v["id"] for v in found["violations"] if v["impact"] in ("serious", "critical")] == []


# what it is made of


def test_without_scripts_everything_is_still_there(browser, runs):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{runs('failing')}")
    assert page.locator("#tests tbody tr").count() == 16
    assert page.locator("a.pic").count() > 100
    assert not page.locator(".tools").is_visible()  # no control that does nothing
    page.locator("a.pic").first.click()
    assert page.url.endswith(".png")
    context.close()


def test_hostile_prompts_stay_text(open_page, runs):
    page = open_page("hostile")
    assert page.evaluate("window.hacked === undefined")
    html = runs("hostile").read_text()
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    assert page.locator("script").count() == 1
    assert page.locator("b[onmouseover]").count() == 0


def test_the_browser_runs_no_script_but_the_pages_own(browser, runs, tmp_path):
    planted = '<main><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'
    (tmp_path / "report.html").write_text(runs("alone").read_text().replace("<main>", planted, 1))
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(f"file://{tmp_path / 'report.html'}")
    assert page.locator("#shown").inner_text() == "16 of 16 shown"
    assert page.evaluate("window.hacked === undefined")
    assert sum("Content Security Policy" in text for text in refused) == 3
    page.close()


def test_missing_and_damaged_pictures_are_stated(tmp_path):
    document = documents.document([documents.result("bf16+fa2", pictures=documents.Pictures(tmp_path, 64))])
    found = sorted((tmp_path).rglob("*.png"))
    found[0].unlink()
    found[1].write_bytes(b"not a picture")
    assert write_reports(document, tmp_path).html.read_text().count("missing</div>") >= 2


def test_drift_shows_the_stored_pictures_beside_now(tmp_path):
    result = documents.result("bf16+fbcache:0.3", pictures=documents.Pictures(tmp_path, 64))
    drifted = msgspec.structs.replace(result, drift=msgspec.structs.replace(result.quality, reference="baseline"))
    html = render_html(documents.document([drifted]), [tmp_path])
    assert "has drifted from the baseline" in html
    assert html.count('data-first="stored" data-second="now"') == 8


def test_an_ab_comparison_is_shown_by_block(tmp_path):
    blocks = (Block(old_s=(2.0, 4.0, 3.0), new_s=(2.1, 4.2, 3.15)), Block(old_s=(2.0, 4.0), new_s=(2.2, 4.4)))
    found = Comparison(
        mode="interleaved", blocks=blocks, change=0.07, low=0.05, high=0.09, decided=True, generations=10,
        old="a", new="b", packages={"torch": ("2.11.0", "2.13.0")},
    )  # fmt: skip
    result = msgspec.structs.replace(documents.result("bf16"), comparison=found)
    html = render_html(documents.document([result]), [tmp_path])
    assert "Old and new environment in turns: +7.0 % [+5.0 %, +9.0 %]" in html
    assert "torch 2.11.0 → 2.13.0" in html
    assert "<td>+5.0 %</td><td>3.000</td><td>3.150</td><td>3</td>" in html
    assert "<td>+10.0 %</td><td>3.000</td><td>3.300</td><td>2</td>" in html


def test_forty_tests_of_eight_prompts_stay_under_ten_mebibytes(tmp_path):
    paths = write_reports(documents.many(40, tmp_path), tmp_path)
    assert paths.html.stat().st_size < 10 * 2**20
    assert load_document(paths.results).collected == 40


def test_pictures_of_noise_stay_within_the_same_bounds(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).random((256, 256, 3))
    monkeypatch.setattr(
        documents.Pictures, "changed", lambda self, i, seed, amount: (self.save(np.roll(noise, seed)),) * 2
    )
    document = documents.many(3, tmp_path)
    monkeypatch.setattr(thumbnails, "BYTES", 2**18)
    html = render_html(document, [tmp_path])
    embedded = sum(map(len, re.findall(r"base64,([^)]*)", html)))
    assert 0 < embedded <= 2**18 * 4 / 3 + 1000


def test_the_page_says_what_the_document_says_and_nothing_else_is_read(runs):
    html = runs("passing").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "default-src 'none'" in unescape(html)
    # sources of published figures may be followed, nothing is fetched
    linked = re.findall(r'(\w{1,12})="https://', runs("failing").read_text())
    assert set(linked) == {"href"}
