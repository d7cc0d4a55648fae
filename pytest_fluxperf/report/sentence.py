"""The verdict on a whole run in one sentence: how many, what changed underneath, what it did, and why."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_fluxperf.machine.software import Difference
from pytest_fluxperf.report.row import Row
from pytest_fluxperf.report.text import decimals, percent, plural, shorten, visible
from pytest_fluxperf.report.view import Overview
from pytest_fluxperf.results import Finding, Result, Verdict

_LONGEST = 160

_SAYS = {
    "latency": "time",
    "speed-up": "time",
    "peak memory": "memory",
    "computed steps": "steps",
    "graph breaks": "graphs",
}
"""What a finding is of; all others are of pictures."""

_SAME = 0.99
"""SSIM from which drifted pictures count as no worse: the default tolerance of a change of SSIM."""


def verdict_sentence(view: Overview) -> str:
    """``2 of 24 regressed: torch 2.11.0 → 2.13.0 made bf16+fbcache:0.3 6.1 % slower: 5 more computed steps per image.``

    A change is said to have *made* the difference where it is the only suspect; beside others it is only named.
    """
    total = len(view.rows)
    skipped = sum(len(d.skipped) for d in view.documents)
    if not total:
        return f"Nothing was measured: {plural(skipped, 'test')} skipped." if skipped else "Nothing was measured."
    moved = next((d.update for d in view.documents if d.update), None)
    if view.gated == 0 and not moved:
        return f"Nothing was gated: none of {plural(total, 'test')} could be judged against a baseline."
    failing = {v: n for v in view.counts if (n := sum(row.fails for row in view.rows if row.verdict == v))}
    if failing:
        (first, n), *rest = failing.items()
        lead = f"{n} of {total} {_said(first, n)}" + "".join(f", {m} {_said(v, m)}" for v, m in rest)
        return f"{lead}: {_cause(view, view.rows[0])}."
    if set(view.counts) == {"passed"}:
        lead = f"All {total} passed" if total > 1 else "The test passed"
        if view.unmeasured:
            lead = f"{total} of {total + view.unmeasured} passed, {view.unmeasured} not measured"
        text = f"{lead}{_claims(view.rows)}"
    else:
        text = ", ".join(
            f"{n} recorded for the first time" if moved and v == "no baseline" else f"{n} {_said(v, n)}"
            for v, n in view.counts.items()
        )
        text = f"None of {total} failed: {text}" + (f", {view.unmeasured} not measured" if view.unmeasured else "")
    if suspects := _suspects(view.differences):
        text += f", with {suspects}"
    if moved:
        refused = sum(change.action == "refused" for document in view.documents for change in document.changes)
        text += f"; baselines updated ({moved})" + (f", {refused} refused" if refused else "")
    return text + "."


def _claims(rows: Sequence[Row]) -> str:
    """What has been judged, and in how many tests where not in all."""
    parts = []
    for claim, what in ("no slower", "time"), ("no heavier", "memory"), ("no worse", "pictures"):
        n = sum(any(_judges(finding, what) for finding in row.result.judgement.findings) for row in rows)
        parts += [claim if n == len(rows) else f"{claim} ({what} judged in {n})"] if n else []
    return f": {', '.join(parts)} than the baseline" if parts else ""


def _judges(finding: Finding, what: str) -> bool:
    """Whether a finding that passed says something of ``time``, ``memory`` or ``pictures``."""
    if finding.tolerance is None:  # shown alone
        return False
    if finding.metric == "drift":  # its floor is far below what anybody would call the same picture
        return what == "pictures" and (finding.now or 0.0) >= _SAME
    return _SAYS.get(finding.metric, "pictures") == what


def _cause(view: Overview, row: Row) -> str:
    """What happened to the worst test, behind what may have caused it."""
    moved = view.differences_of(row)
    suspects = _suspects(moved)
    judgement = row.result.judgement
    name = visible(shorten(row.label, 120))
    if row.verdict == "no baseline":
        if row.document.update or row.document.against != "baselines":
            return f"{name}: {_first_line(judgement.message)}"
        return f"record one with --fluxperf-update, starting with {name}"
    if row.verdict == "invalid":  # the machine's fault, whatever is installed
        return f"{name}: {_first_line(next(iter(row.result.measurement.unfit), judgement.message))}"
    if row.verdict == "broken":
        problem = next(iter(row.result.measurement.problems), judgement.message)
        text = f"{name}: {_first_line(problem)}"
        return f"with {suspects}, {text}" if suspects else text
    decisive = decisive_finding(row.result)
    only = sum(d.suspect and d.rides_on is None for d in moved) == 1
    if decisive is None or decisive.change is None:
        what = f"{name}: {_first_line(decisive.message if decisive else judgement.message)}"
        text = f"with {suspects}, {what}" if suspects else what
    elif only:
        text = f"{suspects} made {_effect(name, decisive, '')}"
    elif suspects:
        text = f"with {suspects}, {_effect(name, decisive, 'is ')}"
    else:
        text = _effect(name, decisive, "is ")
    if judgement.packages_cleared:
        text += " with the old packages as with the new"
    said = [str(d) for d in moved]
    why = step_change(row) or next((a for a in judgement.attribution if not any(d in a for d in said)), None)
    return text + (f": {_first_line(why)}" if why else "")


def _effect(name: str, item: Finding, verb: str) -> str:
    """``bf16+fp8 is 6.1 % slower``, ``bf16+fp8's SSIM is 0.012 lower``; without the verb for after *made*."""
    assert item.change is not None
    size, more = abs(item.change), item.change > 0
    if item.metric == "latency":
        return f"{name} {verb}{percent(size, sign=False)} {'slower' if more else 'faster'}"
    if item.metric in RELATIVE:
        amount = percent(size, sign=False)
    else:
        amount = decimals(size, 4 if size < 0.01 else 3 if size < 1 else 2)
    if item.metric == "computed steps":
        verb = verb.replace("is", "are")
    return f"{name}'s {item.metric} {verb}{amount} {'higher' if more else 'lower'}"


RELATIVE = ("latency", "speed-up", "peak memory", "computed steps")
"""Metrics whose change is a fraction; of others it is a difference."""


def decisive_finding(result: Result) -> Finding | None:
    """The finding that decided the verdict: speed, or else the one furthest past its tolerance."""
    decisive = [f for f in result.judgement.findings if f.verdict == result.judgement.verdict]
    first = ("latency", "speed-up")  # what a user feels comes before what explains it
    return max(decisive, key=lambda f: (f.metric in first, abs(f.change or 0.0) / (f.tolerance or 1.0)), default=None)


def step_change(row: Row) -> str | None:
    """``5 more computed steps per image`` where a cache hits less (or more) often than it did."""
    if row.computed is None or row.baseline_computed is None:
        return None
    delta = row.computed - row.baseline_computed
    if abs(delta) < 0.05:
        return None
    amount = decimals(abs(delta), 1).removesuffix(".0")
    return f"{amount} {'more' if delta > 0 else 'fewer'} computed step{'' if amount == '1' else 's'} per image"


def _suspects(differences: Sequence[Difference], most: int = 2) -> str:
    found = [shorten(str(d), 120) for d in differences if d.suspect and d.rides_on is None]
    if len(found) <= most:
        return visible(" and ".join(found))
    return visible(f"{', '.join(found[:most])} and {len(found) - most} more changes")


def _said(verdict: Verdict, n: int) -> str:
    if verdict == "no baseline":
        return "has no baseline" if n == 1 else "have no baseline"
    return verdict


def _first_line(text: str) -> str:
    line = next(iter(text.strip()[:10_000].splitlines()), "")
    return shorten(visible(shorten(line, _LONGEST)).rstrip("."), _LONGEST)
