"""The two pictures of the report in docs/: a sample run with two regressions, and the report of a real run.

python tools/report_screenshots.py [--output docs]

The sample run is a document of the tests, whose figures are made up; report.png shows reports/sample/, a real run.
Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import runpy
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from pytest_fluxperf.report.html.page import render_html

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SAMPLE = ROOT / "reports" / "sample" / "report.html"
DOCUMENTS = ROOT / "tests" / "report" / "report_documents.py"


def main() -> None:
    """Write both pictures below ``--output``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    output = parser.parse_args().output
    (output / "screenshots").mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("no Chromium on the PATH")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for page, target, height in (
            (write_failing(Path(name)), "screenshots/failing-1280-light.png", 1500),
            (SAMPLE, "report.png", 1240),
        ):
            tab = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
            tab.goto(page.as_uri())
            tab.wait_for_timeout(300)
            save(tab.screenshot(), output / target)
            tab.close()
        browser.close()


def write_failing(folder: Path) -> Path:
    """The page of the tests' document with two regressions."""
    document = runpy.run_path(str(DOCUMENTS))["failing"](folder)
    page = folder / "report.html"
    page.write_text(render_html([document], [folder]), encoding="utf-8")
    return page


def save(png: bytes, path: Path) -> None:
    """Write with a palette: a page of few colours takes a third of the bytes."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
