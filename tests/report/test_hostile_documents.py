"""Documents made by hand: what they may not do to a page, a terminal, a log, a comment or a file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
import xml.etree.ElementTree as ET
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import report_documents as documents
from PIL import Image

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import load_document
from pytest_fluxperf.report.ci import render_annotations, render_junit
from pytest_fluxperf.report.exports import TEXTS
from pytest_fluxperf.report.html import thumbnails
from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.report.markdown import escape, render_markdown
from pytest_fluxperf.report.terminal import progress_line, terminal_summary
from pytest_fluxperf.report.text import columns, fit, printed, visible, wrap
from pytest_fluxperf.results import Picture, RunDocument

EVIL = 'x"><script>alert(1)</script>\x1b[31m\u202e\n::error::planted ##[error]'


@cache
def written() -> bytes:
    """A document of one test of two prompts, with pictures that need not be there."""
    with tempfile.TemporaryDirectory() as folder:
        small = documents.Pictures(Path(folder), 8)
        result = documents.result(
            "bf16+fa2", texts=documents.TEXTS[:2], pictures=small, slower=0.06, verdict="regressed"
        )
    return msgspec.json.encode(documents.document([result], published=documents.failing().published[:1]))


def document_with(tmp_path, change):
    """Reads the document after ``change`` edited its JSON."""
    raw = json.loads(written())
    change(raw)
    (tmp_path / "results.json").write_text(json.dumps(raw))
    return load_document(tmp_path)


def _set(*path):
    *parents, last, value = path

    def change(raw):
        for step in parents:
            raw = raw[step]
        raw[last] = value

    return change


GENERATION = ("results", 0, "measurement", "generations", 0)
PICTURE = (*GENERATION, "picture")
KERNELS = {"device": "cuda", "kernels": [], "busy_s": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        _set(*PICTURE, "sha256", "}</style><script>alert(1)</script>"),
        _set(*PICTURE, "sha256", "a" * 63),
        _set(*PICTURE, "sha256", "a" * 64 + "\n"),
        _set(*PICTURE, "sha256", "A" * 64),
        _set(*PICTURE, "path", "/etc/passwd"),
        _set(*PICTURE, "path", "../../secret.png"),
        _set(*PICTURE, "path", "pictures/../../secret.png"),
        _set(*PICTURE, "path", "a\\b.png"),
        _set(*PICTURE, "path", "x" * 100_000),
        _set(*PICTURE, "path", ""),
        _set(*PICTURE, "width", 10**9),
        _set("published", 0, "url", "javascript:alert(1)"),
        _set("published", 0, "url", "https://a.example/ onclick=x"),
        _set("published", 0, "url", "http://a.example/"),
        _set("published", 0, "seconds", -1.0),
        _set(*GENERATION, "latency_s", -1.0),
        _set(*GENERATION, "latency_s", 1e300),
        _set(*GENERATION, "latency_s", "1"),
        _set(*GENERATION, "decisions", '"><script>'),
        _set("results", 0, "judgement", "findings", 0, "tolerance", 1e308),
        _set("results", 0, "quality", "scores", 0, "ssim", 1e308),
        _set("results", 0, "measurement", "kernels", KERNELS | {"traces": ["/etc/passwd"]}),
        _set("results", 0, "measurement", "kernels", KERNELS | {"traces": ["../x.json.gz"]}),
        _set("collected", -1),
    ],
)
def test_what_reaches_markup_files_or_figures_has_its_type_checked_when_read(tmp_path, change):
    with pytest.raises(FluxPerfError, match=r"is damaged: .*run the tests again") as caught:
        document_with(tmp_path, change)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b'{"format": 3, "results": ' + b"[" * 200_000])
def test_json_without_end_is_no_document(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(FluxPerfError, match=r"is not a results\.json|is damaged"):
        load_document(tmp_path)


def test_an_error_of_reading_repeats_nothing_that_acts(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"format": 3, EVIL: 1}))
    with pytest.raises(FluxPerfError) as caught:
        load_document(tmp_path)
    assert not re.search(r"[\x00-\x1f\u202e]|##\[", str(caught.value))
    with pytest.raises(FluxPerfError) as caught:
        load_document(tmp_path / ("x" * 100_000))
    assert len(str(caught.value)) < 600


# the page


class Markup(HTMLParser):
    """Elements, and attributes that run or load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


@cache
def profiled():
    """A test compared in turns and profiled, one that was skipped, and published figures; without pictures."""
    whole = documents.compared()
    return msgspec.structs.replace(whole, results=whole.results[:2], published=whole.published[:2])


@cache
def poisoned():
    """A document in which every free text is hostile."""
    raw = json.loads(msgspec.json.encode(profiled()))
    kept = {"sha256", "path", "url", "decisions", "verdict", "kind", "mode", "device", "change", "update", "metric"}

    def poison(value, name=""):
        if isinstance(value, dict):
            return {key: poison(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner, name) for inner in value]
        free = isinstance(value, str) and name not in {*kept, "environment", "old", "new", "traces", "against"}
        return f"{value}{EVIL}" if free else value

    return msgspec.convert(poison(raw), RunDocument)


def test_every_text_of_a_page_is_text(tmp_path):
    page = render_html(poisoned(), [tmp_path])
    clean = Markup(render_html(profiled(), [tmp_path]))
    seen = Markup(page)
    assert seen.tags.count("script") == 1
    assert seen.tags.count("style") == 1
    assert seen.handlers == []
    assert {link.split(":")[0] for link in seen.links if ":" in link} == {"https"}
    assert set(seen.tags) <= set(clean.tags)
    body = page.replace(visible_script(page), "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", body)


def visible_script(page: str) -> str:
    return page[page.index("<script>") : page.index("</script>")]


def test_only_the_pages_own_script_may_run(tmp_path):
    page = render_html(documents.failing(), [tmp_path])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    script = visible_script(page).removeprefix("<script>")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def pictured(folder):
    """A document of one test of two prompts with pictures in ``folder``."""
    return documents.document(
        [documents.result("bf16+fa2", pictures=documents.Pictures(folder, 32), texts=documents.TEXTS[:2])]
    )


def test_pictures_are_read_inside_the_runs_folder_only(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    document = documents.document(
        [documents.result("bf16+fa2", pictures=documents.Pictures(run, 32), texts=documents.TEXTS[:2])]
    )
    plain = render_html(document, [run])
    assert "data:image/webp" in plain
    shutil.move(run / "pictures", outside)
    (run / "pictures").symlink_to(outside)
    assert "data:image/webp" not in render_html(document, [run])
    (run / "pictures").unlink()
    (run / "pictures").mkdir()
    for path in outside.iterdir():
        (run / "pictures" / path.name).symlink_to(path)
    assert "data:image/webp" not in render_html(document, [run])
    for place in ("../outside/x.png", str(outside / "x.png")):
        Image.new("RGB", (4, 4)).save(outside / "x.png")
        assert Picture(path=place, sha256="0" * 64, width=4, height=4).file(run) is None
    # the run's own folder may be reached by a link
    (tmp_path / "latest").symlink_to(outside.parent / "again")
    shutil.copytree(outside, tmp_path / "again" / "pictures")
    assert "data:image/webp" in render_html(document, [tmp_path / "latest"])


def test_only_png_of_a_bounded_size_is_opened(tmp_path, monkeypatch):
    document = documents.document(
        [documents.result("bf16+fa2", pictures=documents.Pictures(tmp_path, 32), texts=documents.TEXTS[:2])]
    )
    monkeypatch.setattr(thumbnails, "MOST_PIXELS", 32 * 32 - 1)
    assert "data:image/webp" not in render_html(document, [tmp_path])
    monkeypatch.setattr(thumbnails, "MOST_PIXELS", 32 * 32)
    assert "data:image/webp" in render_html(document, [tmp_path])
    for path in (tmp_path / "pictures").iterdir():
        Image.new("RGB", (32, 32)).save(path, format="bmp")
    assert "data:image/webp" not in render_html(document, [tmp_path])


def test_a_bomb_is_no_picture(tmp_path, monkeypatch):
    document = documents.document(
        [documents.result("bf16+fa2", pictures=documents.Pictures(tmp_path, 32), texts=documents.TEXTS[:2])]
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow raises above twice as many
    assert "data:image/webp" not in render_html(document, [tmp_path])


@pytest.mark.parametrize("seconds", [0.0, 5e-324, 1e9])
def test_no_latency_breaks_a_report(tmp_path, seconds):
    def change(raw):
        for result in raw["results"]:
            for made in result["measurement"]["generations"]:
                made |= {"latency_s": seconds, "reference_latency_s": seconds, "wall_s": seconds}
            for run in result["baseline"]["runs"]:
                for sample in run["samples"]:
                    sample |= {"latency_s": seconds, "reference_latency_s": seconds}
            for finding in result["judgement"]["findings"]:
                finding |= {"change": -1.0, "low": -1.0, "high": -1.0, "tolerance": 1e-300}

    document = document_with(tmp_path, change)
    page = render_html(document, [tmp_path])
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)
    assert render_markdown(document)
    assert terminal_summary(document)
    for render in TEXTS.values():
        render([document])


def test_a_document_without_prompts_and_one_with_very_many_are_shown(tmp_path):
    plain = documents.result("bf16")
    change = msgspec.structs.replace
    none = change(plain, workload=change(plain.workload, prompts=()))
    assert "no prompt" not in render_html(documents.document([none]), [tmp_path])
    prompts = plain.workload.prompts * 2000
    made = plain.measurement.generations * 2000
    many = change(
        plain, workload=change(plain.workload, prompts=prompts), measurement=change(plain.measurement, generations=made)
    )
    page = render_html(documents.document([many]), [tmp_path])
    assert len(page) < 2**20
    assert "and 15800 more, which results.json holds" in page


# terminal and log


@pytest.mark.parametrize("text", ["x" * 4000, "漢" * 4000, "a\u0301" * 2000, "\u202e" * 4000, "w " * 2000 + "x" * 4000])
def test_wrapping_is_linear_and_fits(text, monkeypatch):
    measured = []

    def counted(piece):
        measured.append(len(piece))
        return columns(piece)

    monkeypatch.setattr("pytest_fluxperf.report.text.columns", counted)
    lines = wrap(text, 80, limit=10**6)
    assert sum(measured) <= 4 * len(visible(text)) + 100  # a long word took the cube of its length
    assert max(map(columns, lines)) <= 80
    assert "".join(lines).replace(" ", "") == visible(text).replace(" ", "")


def test_every_foreign_text_on_a_terminal_is_bounded():
    plain = documents.failing()
    judgement = msgspec.structs.replace(plain.results[0].judgement, verdict="broken", message="y" * 10**6)
    evil = msgspec.structs.replace(plain.results[0], test="x" * 10**6, recipe=None, judgement=judgement)
    document = msgspec.structs.replace(plain, results=(evil,), gpu="g" * 10**6, warnings=("w" * 10**6,))
    for render in (terminal_summary, lambda d: render_annotations(d).splitlines(), lambda d: [render_markdown(d)]):
        assert sum(map(len, render(document))) < 40_000
    assert len(progress_line("t" * 10**6, "r" * 10**6, 1, 2, 1.0, width=80)) <= 80


def test_nothing_on_a_terminal_or_log_acts(tmp_path):
    document = poisoned()
    lines = terminal_summary(document, 60)
    lines += [progress_line("::error::x[\x1b]", "##[group]", 1, 2)]
    for line in lines:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line), line
        assert not line.lstrip().startswith("::"), line
        assert "##[" not in line
    assert printed("  ::add-mask::x") == "  ∷add-mask::x"
    assert printed("tests/a.py::test") == "tests/a.py::test"


@pytest.mark.parametrize("width", [1, 8, 40])
def test_a_cut_name_fits(width):
    for text in ("漢字" * 5000, "x" * 10_000, "short"):
        assert columns(fit(text, width)) == max(width, min(columns(text), width))


# comments and CI


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é@name", "é&#64;&#8203;name"),
        ("mail me@example.com", "mail me&#64;&#8203;example.com"),
        ("www.example.com", "www&#8203;.example.com"),
        ("WWW.example.com", "WWW&#8203;.example.com"),
        ("https://example.com", "https:&#8203;//example.com"),
        ("GH-12 gh-3", "GH-&#8203;12 gh-&#8203;3"),
        ("owner/repo#12", "owner/repo&#35;&#8203;12"),
        ("[x](y) ![z]", r"\[x\](y) !\[z\]"),
    ],
)
def test_nothing_becomes_a_link_a_mention_or_a_reference(text, shown):
    assert escape(text) == shown


def test_a_comment_of_hostile_texts_holds_none_of_them(tmp_path):
    text = render_markdown(poisoned())
    outside_code = re.sub(r"<code>.*?</code>", "", text)
    assert "<script" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert not re.search(r"@(?!&#8203;)\w|https?://", outside_code)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://x/>) [a](b", "https://a b", "x" * 5000])
def test_a_link_to_the_report_is_a_url(url):
    with pytest.raises(FluxPerfError, match=r"--artifact-url .*: not an http"):
        render_markdown(documents.passing(), artifact_url=url)
    assert "](https://example.com/a)" in render_markdown(documents.passing(), artifact_url="https://example.com/a")


def test_junit_is_xml_whatever_it_is_told(tmp_path):
    text = render_junit(poisoned())
    assert ET.fromstring(text).findall(".//failure")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    for code in (0, 0x1B, 0xFFFE, 0xFFFF, 0xD800):
        evil = msgspec.structs.replace(documents.passing(), time_utc=f"x{chr(code)}", gpu=f"g{chr(code)}")
        ET.fromstring(render_junit(evil))
