"""How large the report page is and how fast it opens: size, CPU time to write, time to open in headless Chromium.

python benchmarks/report_page.py [--tests 200] [--noise] [--opens 5]

The sample documents of the tests are used: eight prompts a test, three baseline runs, every picture different.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
import report_documents as documents

from pytest_fluxperf.report.html.page import render_html

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--noise", action="store_true", help="pictures that do not compress, as of random weights")
    options = parser.parse_args()
    if options.noise:
        make_noise()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = documents.many(options.tests, folder)
        start = time.process_time()
        page = folder / "report.html"
        page.write_text(render_html(document, [folder]), encoding="utf-8")
        wrote = time.process_time() - start
        size_mib = page.stat().st_size / 2**20
        print(f"{options.tests} tests × 8 prompts: {size_mib:.1f} MiB, written in {wrote:.1f} s of CPU time")
        opened, elements = open_times(page, options.opens)
        median, worst = statistics.median(opened), max(opened)
        print(f"opened in {median:.2f} s (median of {len(opened)}, slowest {worst:.2f} s), {elements} elements")


def make_noise() -> None:
    noise = np.random.default_rng(0).random((256, 256, 3))

    def changed(self: documents.Pictures, index: int, seed: int, _amount: float) -> tuple[object, object]:
        return self.save(np.roll(noise, (index, seed), (0, 1))), self.save(np.roll(noise, (seed, index), (0, 1)))

    documents.Pictures.changed = changed


def open_times(page: Path, opens: int) -> tuple[list[float], int]:
    """Seconds until the page has loaded and can be used (the filter counted the tests), each in a fresh tab."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("no Chromium on the PATH")
    seconds = []
    elements = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for _ in range(opens):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri())
            tab.locator("#shown", has_text="shown").wait_for()
            tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            seconds.append(time.perf_counter() - start)
            elements = tab.evaluate("document.querySelectorAll('*').length")
            tab.close()
        browser.close()
    return seconds, elements


if __name__ == "__main__":
    main()
