from __future__ import annotations

import json
from pathlib import Path

import pytest
from records import workload

from pytest_fluxperf.baseline import published
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.recipe import parse

BASELINES = Path(__file__).parents[2] / "baselines"
FLUX = {"model": "flux-dev", "height": 1024, "width": 1024, "steps": 28}


@pytest.fixture(scope="module")
def shipped():
    return published.load(BASELINES)


def file(tmp_path, **table):
    figures = table.pop("figures", [{"configuration": "BF16", "recipe": "bf16", "mean_s": 8.0}])
    document = {
        "format": 1,
        "source": {"title": "A paper", "date": "2025-01", "url": "https://example.org"},
        "tables": [{"gpu": "h100", **FLUX, **table, "figures": figures}],
    }
    folder = tmp_path / "published"
    folder.mkdir(exist_ok=True)
    (folder / "paper.json").write_text(json.dumps(document))
    return tmp_path


def test_shipped_figures_name_their_source_and_spell_recipes_canonically(shipped):
    assert len(shipped) > 40
    for entry in shipped:
        assert entry.source.url.startswith("https://")
        if entry.figure.recipe is not None:
            assert str(parse(entry.figure.recipe)) == entry.figure.recipe


def test_the_figures_are_the_published_ones(shipped):
    def only(gpu, recipe):
        (entry,) = [e for e in shipped if (e.table.gpu, e.figure.recipe) == (gpu, recipe)]
        return entry

    bf16 = only("h100", "bf16")
    assert (bf16.figure.mean_s, bf16.seconds, bf16.figure.n) == (7.11, 7.09, 12)
    assert only("a100", "fp16+fbcache:0.4").figure.mean_s == 3.31
    assert only("h200", "bf16+fa3+compile").seconds == 3.73
    l40s = only("l40s", "bf16+compile:whole")
    assert (l40s.figure.speedup, l40s.table.steps, l40s.table.height) == (1.23, 50, 512)
    assert "28" in l40s.note


def test_an_estimate_is_not_called_measured(shipped):
    (tensorrt,) = [e for e in shipped if "TensorRT" in e.figure.configuration]
    assert not tensorrt.figure.measured
    assert all(e.figure.measured for e in shipped if e is not tensorrt)


def test_matching_takes_recipe_model_size_and_steps(shipped):
    def gpus(recipe, **changes):
        return [e.table.gpu for e in published.matching(shipped, recipe, workload(**(FLUX | changes)))]

    assert gpus("bf16") == ["a100", "h100", "h200"]
    assert gpus("fp16") == ["a100", "h100"]
    assert gpus("bf16+fa2") == gpus("fp16+fa2") == ["a100", "h100"]  # measured in fp16
    assert gpus("bf16+teacache:0.6") == ["a100", "h100"]
    assert gpus("bf16+compile", model="flux-dev@random") == ["h200"]
    assert gpus("fp32") == gpus(None) == gpus("bf16+fbcache:0.3,computed=8", model="flux-dev@random") == []
    for other in ({"height": 512, "width": 512}, {"steps": 50}, {"model": "tiny"}):
        assert gpus("bf16", **other) == []


def test_speedups_are_over_the_tables_base(tmp_path):
    figures = [
        {"configuration": "slow", "mean_s": 8.0},
        {"configuration": "fast", "mean_s": 2.0},
        {"configuration": "said", "mean_s": 2.0, "speedup": 3.0},
    ]
    loaded = published.load(file(tmp_path, base="slow", figures=figures))
    assert [entry.figure.speedup for entry in loaded] == [1.0, 4.0, 3.0]
    assert [entry.figure.speedup for entry in published.load(file(tmp_path, figures=figures[:1]))] == [None]


def test_no_folder_no_figures(tmp_path):
    assert published.load(tmp_path) == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"base": "other"}, "no figure 'other'"),
        ({"figures": [{"configuration": "x"}]}, "neither seconds nor a speed-up"),
        ({"figures": [{"configuration": "x", "mean_s": -1.0}]}, "figures[0].mean_s: must be positive"),
        ({"steps": "many"}, "$.tables[0].steps"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path, table, words):
    with pytest.raises(FluxPerfError) as error:
        published.load(file(tmp_path, **table))
    assert words in str(error.value)
    assert "paper.json" in str(error.value)


def test_a_run_keeps_the_figures_of_its_workloads(shipped):
    load = workload(model="flux-dev@random", height=1024, width=1024, steps=28)
    found = published.beside(shipped, [load])
    assert {figure.gpu for figure in found} == {"a100", "h100", "h200"}
    bf16 = next(figure for figure in found if figure.gpu == "h100" and figure.recipe == "bf16")
    assert (bf16.seconds, bf16.workload) == (7.09, "flux-dev, 1024×1024, 28 steps")
    assert bf16.source.endswith("(2025-04)")
    assert all(figure.seconds > 0 for figure in found)
    assert published.beside(shipped, [workload()]) == ()
