"""``perf_tests/`` as a team gets it: what is collected, what is left out and why, and in which order it runs."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shutil
from pathlib import Path

import pytest
import records as make

from pytest_fluxperf.machine import hardware, nvml
from pytest_fluxperf.machine.hardware import Gpu
from pytest_fluxperf.pipelines.optimizations.presets import expand
from pytest_fluxperf.plugin.stash import BENCH
from pytest_fluxperf.recipe import parse

PERF_TESTS = Path(__file__).parents[2] / "perf_tests"


class Collected:
    """A plugin that keeps the benches of the collected tests, in the order of the run."""

    def __init__(self):
        self.benches = {}
        self.left_out = {}
        """Test → reason of its skip mark."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        self.benches = {item.nodeid: item.stash[BENCH] for item in session.items if BENCH in item.stash}
        self.left_out = {
            item.nodeid: mark.kwargs["reason"] for item in session.items for mark in item.iter_markers("skip")
        }

    @property
    def measured(self):
        """Recipes of the tests that run."""
        return [bench.recipe for test, bench in self.benches.items() if test not in self.left_out]

    def recipes(self, file):
        return [bench.recipe for test, bench in self.benches.items() if test.startswith(f"perf_tests/{file}::")]


@pytest.fixture
def suite(pytester, monkeypatch):
    """``suite(*arguments) -> (outcome, Collected)`` of the suite in a folder of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that what the suite sets is undone
    shutil.copytree(PERF_TESTS, pytester.path / "perf_tests", ignore=shutil.ignore_patterns("__pycache__"))
    pytester.makeini("[pytest]\naddopts = -p no:benchmark -p no:cacheprovider")

    def run(*arguments):
        collected = Collected()
        result = pytester.runpytest_inprocess("perf_tests", *arguments, plugins=[collected])
        return result, collected

    return run


@pytest.fixture
def on_h100(monkeypatch):
    """An H100 answers; nothing may be generated on it."""
    import torch

    h100 = Gpu("h100", "cuda:0", make.H100, "GPU-1")
    monkeypatch.setattr(hardware, "check_gpu", lambda requested: h100)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))


@pytest.fixture
def on_gpu(suite, on_h100):
    """What an H100 collects with FLUX.1-dev."""
    result, collected = suite("--gpu=h100", "--collect-only", "-q")
    assert result.ret == 0
    return collected


EVEN_EXTRA = "extra or not extra"

PUBLISHED = {
    "test_dtype.py": ["bf16", "fp16", "fp32"],
    "test_attention.py": [
        *(f"bf16+{kernel}" for kernel in ("cudnn", "fa2", "efficient", "math", "flex")),
        *(f"bf16+{package}" for package in ("fa2:package", "fa3", "fa4", "sage", "xformers")),
    ],
    "test_caching.py": [
        *(f"bf16+teacache:{threshold}" for threshold in (0.2, 0.4, 0.6)),
        *(f"bf16+fbcache:{threshold}" for threshold in (0.15, 0.2, 0.3, 0.35, 0.4)),
        "bf16+fbcache:0.3,engine=para-attn",
        "bf16+fbcache:0.3,engine=cache-dit",
        "bf16+fora",
    ],
    "test_quantization.py": ["bf16+fp8", "bf16+fp8wo", "bf16+int8", "bf16+int8wo", "bf16+int4wo"],
    "test_compile.py": ["bf16+compile", "bf16+compile:whole", "bf16+tensorrt"],
    "test_switches.py": ["bf16+fuseqkv", "bf16+channels_last", "bf16+vae_slicing", "bf16+vae_tiling:512"],
    "test_combinations.py": [
        "bf16+fa2+teacache:0.6",
        "bf16+fa2+teacache:0.6+fp8wo",
        "bf16+fa2+teacache:0.6+int8wo",
        "bf16+fa2+fbcache:0.2",
        "bf16+fa2+fbcache:0.3",
        "bf16+fa2+fbcache:0.3+fp8wo",
        "bf16+fa2+fbcache:0.3+int8wo",
        "bf16+fbcache:0.3+compile",
        "bf16+fa3+compile",
        "bf16+cudnn+fp8+compile",
        "bf16+cudnn+fp8+compile:tuned",
        "bf16+cudnn+int8+compile",
        "fastest",
        "fastest_lossless",
    ],
}


def test_the_published_tables_are_collected(on_gpu):
    for file, recipes in PUBLISHED.items():
        missing = set(map(str, map(parse, recipes))) - set(on_gpu.recipes(file))
        assert not missing, f"{file} lacks {missing}"


def test_no_recipe_is_measured_twice_at_one_setting(on_gpu):
    settings = [(bench.recipe, bench.case.workload.digest) for bench in on_gpu.benches.values()]
    assert sorted(settings) == sorted(set(settings))


def test_a_gpu_measures_the_published_setting(on_gpu):
    for test, bench in on_gpu.benches.items():
        work = bench.case.workload
        small = "fifty_small_pictures" in test
        assert (work.height, work.width) == ((512, 512) if small else (1024, 1024))
        assert (work.steps, work.guidance, len(work.prompts)) == (28, 3.5, 50 if small else 8)
        assert work.model == "flux-dev"


def test_what_waits_for_the_host_is_judged_by_a_wider_tolerance(on_gpu):
    tolerances = {bench.recipe: bench.case.policy.max_slowdown for bench in on_gpu.benches.values()}
    wide = {recipe: value for recipe, value in tolerances.items() if value != 0.02}
    fp8 = "bf16+cudnn+{}fp8+compile"
    caches = ("teacache:0.6+", "fbcache:0.2+", "fbcache:0.3,computed=4+", "fbcache:0.3,computed=14+")
    host_bound = [*(fp8.format(cache) for cache in caches), "fastest"]
    uncompiled = ("bf16+fp8", "bf16+fp8:tensor", "bf16+int8")
    assert wide == {**dict.fromkeys(uncompiled, 0.25), **dict.fromkeys(host_bound, 0.06)}


CPU_RECIPES = [
    "fp32",
    "fp32+compile",
    "fp32+fbcache:0.3",
    "fp32+fbcache:0.3+compile",
    "fp32+fbcache:0.3+int8wo",
    "fp32+fora",
    "fp32+int8wo",
    "fp32+teacache:0.6",
]


@pytest.mark.parametrize("arguments", [["--gpu=cpu"], []])
def test_a_cpu_measures_the_embedded_model_at_its_size(suite, monkeypatch, arguments):
    monkeypatch.setattr(nvml, "session", lambda: contextlib.nullcontext(None))  # no driver answers
    result, collected = suite(*arguments, "--collect-only", "-q")
    assert result.ret == 0
    assert sorted(collected.measured) == CPU_RECIPES
    settings = {
        (b.case.workload.model, b.case.workload.height, b.case.workload.width, b.case.workload.steps)
        for test, b in collected.benches.items()
        if test not in collected.left_out
    }
    assert settings == {("tiny", 256, 256, 8)}


def test_what_a_cpu_leaves_out_says_why(suite):
    result, collected = suite("--gpu=cpu", "-rs", "-k", "attention or dtype and not fp32 or fbcache:0.2 or fifty")
    result.assert_outcomes(skipped=len(collected.benches))
    assert not collected.measured
    for reason in (
        "*attention kernels are made for GPUs",
        "*16-bit arithmetic is emulated on a CPU*",
        "*one setting of each cache is enough*",
        "*two combinations are enough*",
    ):
        result.stdout.fnmatch_lines([reason])


def test_long_tests_and_fifty_pictures_run_on_request_only(suite, on_h100):
    _, collected = suite("--gpu=h100", "--collect-only", "-q")
    on_request = {
        "it is beside the published tables; run it by -m extra": ["efficient", "int4wo", "pab", "channels_last"],
        "it takes minutes on a GPU; run it by -m long": ["compile:whole", "[fp32]"],
        "it makes 50 pictures a test; run it by -m prompts50": ["fifty_small"],
    }
    for reason, parts in on_request.items():
        tests = [test for test, why in collected.left_out.items() if why == reason]
        assert all(any(part in test for test in tests) for part in parts)
    assert set(collected.left_out.values()) == set(on_request)
    _, chosen = suite("--gpu=h100", "--collect-only", "-q", "-m", "prompts50")
    assert sorted(chosen.measured) == ["bf16", "bf16+compile", "bf16+fora", "bf16+fora+compile"]
    assert all("fifty_small" in test for test in chosen.benches)
    _, chosen = suite("--gpu=h100", "--collect-only", "-q", "-m", "long")
    assert "fp32" in chosen.measured
    assert not chosen.left_out


def test_fifty_pictures_are_made_on_a_cpu_too_at_its_own_size(suite):
    _, chosen = suite("--gpu=cpu", "--collect-only", "-q", "-m", "prompts50")
    assert sorted(chosen.measured) == ["fp32+compile", "fp32+fora", "fp32+fora+compile"]
    loads = [bench.case.workload for bench in chosen.benches.values()]
    assert {(load.width, load.steps, len(load.prompts)) for load in loads} == {(256, 8, 50)}


@pytest.mark.parametrize("ini", [False, True])
def test_random_weights_need_one_setting_of_each_cache(suite, on_h100, pytester, ini):
    if ini:
        (pytester.path / "tox.ini").write_text(
            "[pytest]\naddopts = -p no:benchmark -p no:cacheprovider\nfluxperf_model = flux-dev@random\n"
        )
    _, collected = suite("--gpu=h100", "--collect-only", "-q", *([] if ini else ["--fluxperf-model=flux-dev@random"]))
    reason = "random weights meet no threshold: one setting of each cache measures them all"
    left = sorted(collected.benches[test].recipe for test, why in collected.left_out.items() if why == reason)
    caches = [f"fbcache:{threshold}" for threshold in (0.15, 0.2, 0.35, 0.4)]
    caches += ["teacache:0.2", "teacache:0.4", "fa2+fbcache:0.2"]
    quantized = [f"bf16+fa2+teacache:0.6,computed=8+{weights}" for weights in ("fp8wo", "int8wo")]
    assert left == sorted([*(f"bf16+{cache},computed=8" for cache in caches), *quantized])
    assert "bf16+fbcache:0.3,computed=8" in collected.measured
    assert "fastest:computed=8" in collected.measured
    settings = [(collected.benches[test].recipe) for test in collected.benches if "fifty" not in test]
    assert sorted(settings) == sorted(set(settings))


def test_a_package_that_is_not_installed_is_named_before_anything_is_loaded(suite, on_h100, monkeypatch):
    from pytest_fluxperf.pipelines import loading

    def refuse(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load", refuse)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    result, _ = suite(
        "--gpu=h100", "-rs", "-k", "package or fa3 or fa4 or sage or xformers or tensorrt", "-m", EVEN_EXTRA
    )
    result.assert_outcomes(skipped=9)
    for package in (
        "flash-attn>=",
        "flash-attn-3,",
        "flash-attn-4,",
        "sageattention>=",
        "xformers>=",
        "torch-tensorrt,",
    ):
        result.stdout.fnmatch_lines([f"SKIPPED*needs the package {package}*which is not installed*"])


def test_a_gpu_that_is_not_there_is_an_error_before_anything_runs(suite):
    result, _ = suite("--gpu=h200")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.startswith("ERROR:")]
    assert line.startswith("ERROR: --gpu h200: ")
    assert "use --gpu" in line
    result.assert_outcomes()


def test_tests_that_share_what_is_expensive_follow_each_other(on_gpu):
    def shared(recipe, depth):
        whole = expand(parse(recipe), "cuda:0")
        families = ("quantization", "attention", "compile")[:depth]
        return (whole.dtype, *(str(whole.token(family) or "") for family in families))

    for depth in range(4):
        runs = [key for key, _ in itertools.groupby(shared(b.recipe, depth) for b in on_gpu.benches.values())]
        assert len(runs) == len(set(runs)), f"what {runs} share is applied more than once"
