"""What plots show, and what they must not suggest."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.report.html.drawings import Mark, Point, changes, history, interval, scatter, steps
from pytest_fluxperf.report.html.svg import Scale, width_of
from pytest_fluxperf.report.view import overview


def parts(svg: str, *classes: str) -> list[ET.Element]:
    """The elements that have all of these classes."""
    return [node for node in ET.fromstring(svg).iter() if {*classes} <= {*node.get("class", "").split()}]


def texts(svg: str, class_: str) -> list[tuple[str, float, float]]:
    return [(node.text or "", float(node.get("x")), float(node.get("y"))) for node in parts(svg, class_)]


def fall(now: float, before: float) -> float:
    """How far a recipe's dot lies below its baseline's, in units of the plot."""
    svg = scatter([Point("fp32", 1.0, now, (1.1, before))], "SSIM", rising=True)
    assert not any("e" in node.text for node in parts(svg, "tick") if node.get("text-anchor") == "end"), "plain numbers"
    (dot,), (hollow,) = parts(svg, "dot"), parts(svg, "hollow")
    return float(dot.get("cy")) - float(hollow.get("cy"))


def test_rounding_does_not_look_like_lost_quality():
    assert abs(fall(0.9279422, 0.9279425)) < 1
    assert fall(0.9179, 0.9279) > 50


@pytest.mark.parametrize("rising", [True, False])
def test_better_is_towards_the_top_left(rising):
    good, bad = Point("good", 1.0, 0.9 if rising else 0.1, None), Point("bad", 2.0, 0.5, None)
    first, second = parts(scatter([good, bad], "metric", rising=rising), "dot")
    assert float(first.get("cx")) < float(second.get("cx"))
    assert float(first.get("cy")) < float(second.get("cy"))


def test_labels_lie_neither_on_points_nor_on_each_other_nor_outside():
    points = [
        Point(f"bf16+recipe:{i}", 1 + (i * 7 % 11) / 3, 0.8 + (i * 5 % 13) / 80, (1.2 + (i * 7 % 11) / 3, 0.85))
        for i in range(30)
    ]
    svg = scatter(points, "SSIM", rising=True, published=[Mark("x", 3.0, True)])
    boxes = []
    for node in parts(svg, "label"):
        wide, x, y = width_of(node.text, 10), float(node.get("x")), float(node.get("y"))
        left = x - {"middle": wide / 2, "end": wide}.get(node.get("text-anchor"), 0)
        boxes.append((left, y - 8, left + wide, y + 1))
    dots = [(float(d.get("cx")), float(d.get("cy"))) for d in parts(svg, "dot")]
    assert 5 <= len(boxes) <= 30
    for a, b in itertools.combinations(boxes, 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
    for left, top, right, bottom in boxes:
        assert 48 < left < right < 432
        assert 0 < top < bottom < 295 - 36 - 32
        assert not any(left < x < right and top < y < bottom for x, y in dots)


def test_thousands_of_points_are_drawn_with_labels_for_the_failed():
    points = [Point(f"r{i}", 1 + i % 97 / 9, (i % 89) / 89, None) for i in range(1999)]
    points.append(Point("failed", 30.0, 0.5, None, "bad"))
    svg = scatter(points, "SSIM", rising=True)
    assert len(parts(svg, "dot")) == 2000
    assert "failed" in [text for text, _, _ in texts(svg, "label")]


@pytest.mark.parametrize("values", [(0.0, 0.0), (1e-9, 1e-9), (5.0, 5.0), (0.001, 1000.0), (-1.0, 1e9), (99.99, 100.0)])
def test_an_axis_of_any_values_has_round_ticks_that_differ(values):
    scale = Scale.around(values, 40, 400, 0.1)
    ticks = scale.ticks(6)
    assert 2 <= len(ticks) <= 7
    assert len({text for _, text in ticks}) == len(ticks)
    assert all(40 <= scale.at(value) <= 400 for value, _ in ticks)
    assert all(40 < scale.at(value) < 400 for value in values)
    for value, text in ticks:
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("paired", [True, False])
def test_the_first_prompt_is_on_top(paired):
    rows = overview([documents.broken()]).rows
    row = next(row for row in rows if row.prompts and paired == any(p.change is not None for p in row.prompts))
    named = {text: y for text, x, y in texts(changes(row, "a"), "tick") if x < 30}
    heights = [named[str(pair.index + 1)] for pair in row.prompts]
    assert len(heights) >= 3
    assert heights == sorted(heights)


def test_the_change_of_every_prompt_and_round_stands_where_its_value_is():
    plain = documents.result("bf16", slower=0.05, verdict="regressed")
    twice = plain.measurement.generations * 2
    result = msgspec.structs.replace(plain, measurement=msgspec.structs.replace(plain.measurement, generations=twice))
    (row,) = overview(documents.document([result])).rows
    svg = changes(row, "a")
    assert len(parts(svg, "every")) == 16
    ticks = {float(text.replace("−", "-")): x for text, x, _ in texts(svg, "tick") if x > 30 and "change" not in text}
    (low, at_low), (high, at_high) = min(ticks.items()), max(ticks.items())
    for dot, pair in zip(parts(svg, "dot", "now"), row.prompts, strict=True):
        share = (100 * pair.change - low) / (high - low)
        assert float(dot.get("cx")) == pytest.approx(at_low + share * (at_high - at_low), abs=0.2)
    assert parts(svg, "end", "bad")


def test_a_relative_test_is_shown_as_slower_to_the_right():
    result = documents.result("bf16+fbcache:0.3", slower=0.06, verdict="regressed", relative=True)
    (row,) = overview(documents.document([result])).rows
    assert row.speed.metric == "speed-up"
    assert row.change < 0
    (circle,) = ET.fromstring(interval(row)).iter("circle")
    assert float(circle.get("cx")) > 45
    assert "change -5.7 %" in ET.fromstring(interval(row)).get("aria-label")


def test_history_has_a_dot_for_each_run_and_now_and_dates_that_do_not_touch():
    (row,) = overview(documents.document([documents.result("bf16", runs=3)])).rows
    svg = history(row, "h")
    assert len(parts(svg, "hollow")) == 3
    assert [text for text, _, _ in texts(svg, "tick") if "-" in text or text == "now"] == [
        "2026-05-11", "2026-07-11", "now",
    ]  # fmt: skip
    (two,) = overview(documents.document([documents.result("bf16", runs=1)])).rows
    assert history(two, "h") == ""


def test_steps_are_drawn_as_runs_of_what_was_computed():
    (row,) = overview(documents.document([documents.result("bf16+fbcache:0.3")])).rows
    pair = row.prompts[0]
    (now,) = parts(steps(pair), "now")
    drawn = [piece.split()[0] for piece in now.get("d").split("M")[1:]]
    starts = [i for i, step in enumerate(pair.decisions) if step == "1" and (i == 0 or pair.decisions[i - 1] == "0")]
    assert [int(start) for start in drawn] == starts


def test_foreign_names_stay_text():
    svg = scatter([Point('<script>"&', 1.0, 0.5, None, target='x"><b>')], "SSIM", rising=True)
    assert "<script" not in svg
    assert [node.get("data-open") for node in ET.fromstring(svg).iter() if node.get("data-open")] == ['x"><b>']
