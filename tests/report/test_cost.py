from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.baseline.published import load
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import write_document
from pytest_fluxperf.results import Generation, Measurement, Workload
from tools.recorded import cost, table
from tools.recorded.__main__ import main
from tools.recorded.sections import read_section

COMPUTED_S, CACHED_S, TEXT_S, DECODE_S, REST_S = 0.170, 0.010, 0.030, 0.085, 0.005
STEPS = 28
BASELINES = Path(__file__).parents[2] / "baselines"


def generation(decisions, wobble=1.0):
    steps = tuple((COMPUTED_S if d == "1" else CACHED_S) * wobble for d in decisions)
    return Generation(
        latency_s=TEXT_S + sum(steps) + DECODE_S + REST_S,
        wall_s=1.0,
        text_encode_s=TEXT_S,
        denoise_s=sum(steps),
        decode_s=DECODE_S,
        steps_s=steps,
        decisions=decisions,
    )


def schedule(computed):
    return "".join("1" if i * computed // STEPS != (i - 1) * computed // STEPS else "0" for i in range(STEPS))


def session(recipes, *, name="one", model="flux-dev@random"):
    """A document of ``{recipe: generations}``."""
    base = documents.passing()
    template = base.results[0]
    workload = Workload(
        model=model, prompts=template.workload.prompts, height=1024, width=1024, steps=STEPS, guidance=3.5
    )
    results = tuple(
        msgspec.structs.replace(
            template,
            test=f"test_{index}",
            recipe=recipe,
            reference="bf16",
            workload=workload,
            measurement=Measurement(
                generations=tuple(made), warmup_s=(20.0, 5.0), prepare_s=0.5, peak_memory_mib=1024.0 * (index + 30)
            ),
        )
        for index, (recipe, made) in enumerate(recipes.items())
    )
    return msgspec.structs.replace(base, results=results, session=name, warnings=("the weights are random",))


@pytest.fixture
def measured():
    recipes = {"bf16": [generation("1" * STEPS)] * 3}
    for computed in (4, 8, 14):
        recipes[f"bf16+fbcache:0.3,computed={computed}"] = [generation(schedule(computed))] * 3
    recipes["bf16+fbcache:0.3,engine=para-attn,computed=8"] = [generation(schedule(8), 1.1)] * 3
    recipes["bf16+pab"] = [generation(schedule(14))]
    return recipes


def costs(recipes, *more):
    """The model of sessions of such recipes, its caches by name."""
    dense, caches = cost.cost_model([session(each).results for each in (recipes, *more)])
    return dense, {cache.cache: cache for cache in caches}


def test_parts_are_told_apart_and_schedules_predicted(measured):
    dense, by_engine = costs(measured, measured)
    (bf16,) = dense
    assert (bf16.recipe, bf16.n, bf16.sessions, len(bf16.steps_s)) == ("bf16", 6, 2, STEPS)
    assert bf16.computed_step_s == pytest.approx(COMPUTED_S)
    assert (bf16.text_encode_s, bf16.decode_s) == (TEXT_S, DECODE_S)
    assert bf16.rest_s == pytest.approx(REST_S)
    assert bf16.latency_s == pytest.approx(bf16.measured_s)
    assert set(by_engine) == {"fbcache (diffusers)", "fbcache (para-attn)"}  # pab's cached steps are no one price
    native = by_engine["fbcache (diffusers)"]
    assert native.first_cached_step_s == pytest.approx(CACHED_S)
    assert native.further_cached_step_s == pytest.approx(CACHED_S)
    assert native.n == 18
    assert [check.computed for check in native.checks] == [4, 8, 14]
    assert [check.error for check in native.checks] == pytest.approx([0, 0, 0], abs=1e-9)
    fixed = TEXT_S + DECODE_S + REST_S
    expected = (fixed + STEPS * COMPUTED_S) / (fixed + 8 * COMPUTED_S + 20 * CACHED_S)
    assert native.speedup(20 / 28) == pytest.approx(expected)
    assert native.speedup(0.0) == pytest.approx(1.0)
    between = (fixed + STEPS * COMPUTED_S) / (fixed + 8.5 * COMPUTED_S + 19.5 * CACHED_S)
    assert native.speedup(19.5 / 28) == pytest.approx(between, rel=1e-3)
    assert by_engine["fbcache (para-attn)"].checks == ()


def test_a_schedule_is_predicted_from_the_others_alone(measured):
    """A schedule that is off misses by as much, and does not spoil its own prediction."""
    name = "bf16+fbcache:0.3,computed=14"
    slow = [msgspec.structs.replace(made, latency_s=made.latency_s * 1.05) for made in measured[name]]
    _, caches = costs(measured | {name: slow})
    errors = {check.computed: check.error for check in caches["fbcache (diffusers)"].checks}
    assert errors[14] == pytest.approx(1 / 1.05 - 1)
    assert errors[8] == pytest.approx(0, abs=1e-9)
    assert errors[4] == pytest.approx(0, abs=1e-9)


def priced(decisions, *, first, further, late):
    """A generation whose cached steps have two prices, and whose computed steps are slower after a second of load."""
    steps, elapsed = [], 0.0
    for before, decision in zip("0" + decisions, decisions, strict=False):
        if decision == "1":
            steps.append(COMPUTED_S if elapsed < 1.0 else late)
        else:
            steps.append(first if before == "1" else further)
        elapsed += steps[-1]
    return msgspec.structs.replace(
        generation(decisions), steps_s=tuple(steps), latency_s=TEXT_S + sum(steps) + DECODE_S + REST_S
    )


def test_prices_depend_on_what_came_before(measured):
    """Cached steps after a cached one wait for the host; computed ones slow down when the power limit is reached."""
    prices = {"first": 0.004, "further": 0.008, "late": 0.180}
    recipes = {"bf16": [priced("1" * STEPS, **prices)] * 2}
    for computed in (4, 8, 14):
        recipes[f"bf16+fbcache:0.3,computed={computed}"] = [priced(schedule(computed), **prices)] * 2
    (bf16,), caches = costs(recipes)
    cache = caches["fbcache (diffusers)"]
    assert cache.first_cached_step_s == pytest.approx(0.004)
    assert cache.further_cached_step_s == pytest.approx(0.008)
    assert bf16.computed_step_s > COMPUTED_S
    assert [check.error for check in cache.checks] == pytest.approx([0, 0, 0], abs=1e-3)
    assert cache.latency_of(schedule(4)) == pytest.approx(bf16.fixed_s + 4 * COMPUTED_S + 4 * 0.004 + 20 * 0.008)


def test_text_encoding_disturbed_in_one_test_does_not_count_for_its_recipe(measured):
    disturbed = [
        msgspec.structs.replace(made, text_encode_s=TEXT_S * 2, latency_s=made.latency_s + TEXT_S)
        for made in measured["bf16"]
    ]
    (bf16,), caches = costs(measured | {"bf16": disturbed})
    assert bf16.text_encode_s == TEXT_S
    assert bf16.measured_s - bf16.latency_s == pytest.approx(TEXT_S)
    assert all(abs(check.error) < 1e-9 for check in caches["fbcache (diffusers)"].checks)


def test_schedules_are_spread_as_the_measuring_mode_spreads_them():
    from pytest_fluxperf.pipelines.optimizations.stepcache import in_schedule

    for computed in range(1, STEPS + 1):
        spread = "".join("01"[in_schedule(i, computed, STEPS)] for i in range(STEPS))
        assert cost.evenly_spread(computed, STEPS) == spread
    assert cost.evenly_spread(0, STEPS) == "0" * STEPS


def test_a_whole_recipe_counts_as_what_it_stands_for(measured):
    document = session({"fastest_lossless": measured["bf16"]})
    (result,) = document.results
    named = msgspec.structs.replace(result.measurement, facts={"recipe": "bf16+cudnn+compile"})
    dense, _ = cost.cost_model([[msgspec.structs.replace(result, measurement=named)]])
    assert [one.recipe for one in dense] == ["bf16+cudnn+compile"]


def test_the_command_checks_the_predictions(measured, tmp_path, capsys):
    write_document(session(measured), tmp_path / "good.json")
    assert main(["cost", str(tmp_path / "good.json"), "--json", str(tmp_path / "cost.json")]) == 0
    printed = capsys.readouterr().out
    assert "| `bf16+fbcache:0.3,computed=14` | 14 | " in printed
    assert " | +0.0% | 0.0% | 30.00 | 3 |" in printed
    assert "3 of 3 schedules are predicted within 2%" in printed
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["dense"][0]["steps_s"] == pytest.approx([COMPUTED_S] * STEPS)
    assert {round(check["error"], 6) for check in written["caches"][0]["checks"]} == {0.0}
    slow = [msgspec.structs.replace(m, latency_s=m.latency_s * 1.05) for m in measured["bf16+fbcache:0.3,computed=14"]]
    write_document(session(measured | {"bf16+fbcache:0.3,computed=14": slow}), tmp_path / "off.json")
    assert main(["cost", str(tmp_path / "off.json")]) == 1
    write_document(
        session({"bf16": [msgspec.structs.replace(measured["bf16"][0], steps_s=())]}), tmp_path / "none.json"
    )
    assert main(["cost", str(tmp_path / "none.json")]) == 4
    assert "has recorded steps" in capsys.readouterr().err


def test_the_table_puts_sessions_together_with_published_figures(measured):
    slower = {recipe: [generation(m.decisions, 1.02) for m in made] for recipe, made in measured.items()}
    text = table.recipe_tables([session(measured), session(slower, name="two")], load(BASELINES))
    rows = {
        line.split(" | ")[0].strip("| `"): line.split(" | ") for line in text.splitlines() if line.startswith("| `")
    }
    bf16 = rows["bf16"]
    p50 = (generation("1" * STEPS).latency_s + generation("1" * STEPS, 1.02).latency_s) / 2
    assert bf16[1:4] == [f"{p50:.3f}", "1.00×", "28 of 28"]
    assert bf16[6] == "6 (2)"
    assert "7.09 s 1.00× (H100, n=12)" in bf16[7]
    assert "5.58 s 1.00× (H200, n=1)" in bf16[7]
    scheduled = rows["bf16+fbcache:0.3,computed=8"]
    assert scheduled[3] == "8 of 28"
    assert scheduled[4] == "32.0 (+7%)"
    assert scheduled[5] == "20.5"
    assert scheduled[7].strip(" |") == ""  # a schedule is not what was published
    assert next(iter(rows)) == "bf16"
    assert "The weights are random." in text
    assert "Speed-ups are over `bf16` of the same session (median)." in text


def test_speedups_are_those_of_a_session(measured):
    """The second session is on a slower card, and neither measured everything."""
    cached = "bf16+fbcache:0.3,computed=8"

    def at(wobble, *recipes):
        return {recipe: [generation(measured[recipe][0].decisions, wobble)] for recipe in recipes}

    def speedups(*sessions):
        text = table.recipe_tables(session(each, name=f"session {i}") for i, each in enumerate(sessions))
        return {line.split(" | ")[0].strip("| `"): line.split(" | ")[2] for line in text.splitlines() if "× |" in line}

    def over_bf16(recipe, wobble, base=1.0):
        return f"{at(base, 'bf16')['bf16'][0].latency_s / at(wobble, recipe)[recipe][0].latency_s:.2f}×"

    assert speedups(at(1.0, "bf16", cached), at(1.5, "bf16", "bf16+pab")) == {
        "bf16": "1.00×",
        cached: over_bf16(cached, 1.0),
        "bf16+pab": over_bf16("bf16+pab", 1.5, 1.5),
    }
    assert speedups(at(1.0, "bf16"), at(1.5, "bf16+pab"))["bf16+pab"] == over_bf16("bf16+pab", 1.5)


def test_a_whole_recipe_is_in_the_row_of_what_it_stood_for(measured):
    def named(recipe, ran, name):
        document = session({"bf16": measured["bf16"], recipe: measured["bf16"]}, name=name)
        facts = {"facts": {"recipe": ran}}
        results = [
            msgspec.structs.replace(r, measurement=msgspec.structs.replace(r.measurement, **facts))
            if r.recipe == recipe
            else r
            for r in document.results
        ]
        return msgspec.structs.replace(document, results=tuple(results))

    text = table.recipe_tables(
        [
            named("fastest_lossless", "bf16+compile", "one"),
            named("fastest_lossless", "bf16+compile:tuned", "two"),
            named("bf16+compile", "bf16+compile", "three"),
        ]
    )
    rows = {line.split(" | ")[0]: line.split(" | ")[6] for line in text.splitlines() if line.startswith("| `")}
    assert rows == {
        "| `bf16`": "9 (3)",
        "| `bf16+compile` (as `fastest_lossless`)": "6 (2)",
        "| `bf16+compile:tuned` (as `fastest_lossless`)": "3 (1)",
    }


def test_broken_results_have_no_row(measured):
    document = session(measured)
    broken = tuple(
        msgspec.structs.replace(r, judgement=msgspec.structs.replace(r.judgement, verdict="broken"))
        for r in document.results
    )
    with pytest.raises(FluxPerfError, match="no measured recipe"):
        table.recipe_tables([msgspec.structs.replace(document, results=broken)])


def test_the_table_goes_between_the_marks(measured, tmp_path, capsys):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    write_document(session(measured), results)
    marks = {name: [f"<!-- fluxperf {name}: {end} -->" for end in ("begin", "end")] for name in ("table", "cost")}
    page.write_text(
        "# Recipes\n\n" + "".join(f"{begin}\nold\n{end}\nrest\n" for begin, end in marks.values()), encoding="utf-8"
    )
    for _ in range(2):
        assert main(["table", str(results), "--into", str(page), "--baselines", str(BASELINES)]) == 0
        assert main(["cost", str(results), "--into", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Recipes\n\n{marks['table'][0]}\n**")
    assert f"{marks['table'][1]}\nrest\n{marks['cost'][0]}\n| dense recipe | " in text
    assert text.endswith(f"{marks['cost'][1]}\nrest\n")
    assert "old" not in text
    capsys.readouterr()
    assert main(["cost", str(results)]) == 0
    assert read_section(page, "cost") == capsys.readouterr().out
    page.write_text("no marks")
    assert main(["table", str(results), "--into", str(page)]) == 4
    assert "must hold the lines" in capsys.readouterr().err
    assert page.read_text() == "no marks"
