"""The pictures of the report in docs/: a passing, a failing and a broken sample run, light and dark, wide and narrow.

python benchmarks/report_screenshots.py [--output docs]

The runs are the sample documents of the tests, whose figures are made up; report.png shows reports/sample/, a real run.
Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
import report_documents as documents

from pytest_fluxperf.report.html.page import render_html

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
RUNS = ("passing", "failing", "broken")
SAMPLE = Path(__file__).resolve().parents[1] / "reports" / "sample" / "report.html"
WIDE, NARROW = (1280, 1500), (400, 1500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs")
    output = parser.parse_args().output
    (output / "screenshots").mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("no Chromium on the PATH")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        pages = {run: write(run, Path(name)) for run in (*RUNS, "two")} | {"sample": SAMPLE}

        def shoot(run: str, target: str, size: tuple[int, int], dark: bool = False, act: Any = None) -> None:
            tab = browser.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
            )
            tab.goto(pages[run].as_uri())
            if act:
                act(tab)
            tab.wait_for_timeout(300)
            save(tab.screenshot(), output / target)
            tab.close()

        for run in RUNS:
            for size in (WIDE, NARROW):
                for dark in (False, True):
                    shoot(run, f"screenshots/{run}-{size[0]}-{'dark' if dark else 'light'}.png", size, dark)
        shoot("sample", "report.png", (1280, 1240))
        shoot("failing", "screenshots/test-1280-light.png", WIDE, act=scroll_to_test)
        shoot("failing", "screenshots/viewer-1280-dark.png", (1280, 900), dark=True, act=open_viewer)
        shoot("two", "screenshots/machines-1280-light.png", (1280, 1300))
        browser.close()


def write(run: str, folder: Path) -> Path:
    folder = folder / run
    folder.mkdir()
    if run == "two":
        other = msgspec.structs.replace(documents.faster(folder), gpu="h200", hardware=documents.H200)
        html = render_html([documents.failing(folder), other], [folder])
    else:
        html = render_html(getattr(documents, run)(folder), [folder])
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


def scroll_to_test(tab: Any) -> None:
    tab.locator("details.test").first.evaluate("node => node.scrollIntoView()")


def open_viewer(tab: Any) -> None:
    tab.locator("details.test a.pic[data-kind=now]").nth(1).click()


def save(png: bytes, path: Path) -> None:
    """Write with a palette: a page of few colours takes a third of the bytes."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
