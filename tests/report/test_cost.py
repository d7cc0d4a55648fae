from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.baseline.published import load
from pytest_fluxperf.cli import main
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import cost, table, write_document
from pytest_fluxperf.results import Generation, Measurement, Workload

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


def test_parts_are_told_apart_and_schedules_predicted(measured):
    dense, caches = cost.cost_model([session(measured).results, session(measured, name="two").results])
    (bf16,) = dense
    assert (bf16.recipe, bf16.n, bf16.sessions, bf16.steps) == ("bf16", 6, 2, STEPS)
    assert bf16.computed_step_s == pytest.approx(COMPUTED_S)
    assert bf16.overhead_s == pytest.approx(REST_S)
    by_engine = {cache.cache: cache for cache in caches}
    assert set(by_engine) == {"fbcache (diffusers)", "fbcache (para-attn)"}  # pab's cached steps are no one price
    native = by_engine["fbcache (diffusers)"]
    assert native.cached_step_s == pytest.approx(CACHED_S)
    assert native.calibrated_on == "bf16+fbcache:0.3,computed=4"
    assert [check.computed for check in native.checks] == [8, 14]
    assert [check.error for check in native.checks] == pytest.approx([0, 0], abs=1e-9)
    fixed = TEXT_S + DECODE_S + REST_S
    expected = (fixed + STEPS * COMPUTED_S) / (fixed + 8 * COMPUTED_S + 20 * CACHED_S)
    assert native.speedup(20 / 28) == pytest.approx(expected)
    assert native.speedup(0.0) == pytest.approx(1.0)
    assert by_engine["fbcache (para-attn)"].checks == ()


def test_a_cached_step_that_costs_more_elsewhere_shows_as_an_error(measured):
    slow = [
        msgspec.structs.replace(made, latency_s=made.latency_s * 1.05)
        for made in measured["bf16+fbcache:0.3,computed=14"]
    ]
    _, caches = cost.cost_model([session(measured | {"bf16+fbcache:0.3,computed=14": slow}).results])
    errors = {check.computed: check.error for cache in caches for check in cache.checks}
    assert errors[14] == pytest.approx(1 / 1.05 - 1)
    assert errors[8] == pytest.approx(0, abs=1e-9)


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
    assert "computed=14: 14 computed, predicted" in printed
    assert "n=3" in printed
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["dense"][0]["computed_step_s"] == pytest.approx(COMPUTED_S)
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
    page.write_text(f"# Recipes\n\n{table.BEGIN}\nold\n{table.END}\nrest\n")
    for _ in range(2):
        assert main(["table", str(results), "--into", str(page), "--baselines", str(BASELINES)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Recipes\n\n{table.BEGIN}\n**")
    assert text.endswith(f"{table.END}\nrest\n")
    assert "old" not in text
    page.write_text("no marks")
    assert main(["table", str(results), "--into", str(page)]) == 4
    assert "must hold the lines" in capsys.readouterr().err
    assert page.read_text() == "no marks"
