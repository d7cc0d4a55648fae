"""A project with fluxperf tests on a small random pipeline, under a clock that counts work instead of time.

Every transformer block costs 10 ms, the text encoders 5 ms each, decoding 40 ms: what the gate sees does not depend on
the machine, and skipped blocks are really cheaper. ``fault.txt`` in the project breaks things on purpose.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import tinyflux

import pytest_fluxperf.bench.session  # noqa: F401 (so that runs in this process all find the one whose clock is replaced)

CONFTEST = """
from pathlib import Path

import pytest

from pytest_fluxperf.bench import session
from pytest_fluxperf.measure import runner


class WorkClock:
    now = 0.0

    def mark(self):
        return WorkClock.now

    def synchronize(self):
        pass

    def seconds(self, start, end):
        return end - start


session.clock_for = lambda device: WorkClock()
FAULT = Path(__file__).with_name("fault.txt")
SLOW = Path(__file__).with_name("slow.txt")  # kind and factor: all that is so called takes so many times as long


@pytest.fixture
def work():  # takes seconds of that clock
    def spend(seconds):
        WorkClock.now += seconds

    return spend


@pytest.fixture
def fault():
    return FAULT.read_text() if FAULT.exists() else ""


COST = {"text_encoder": 0.005, "text_encoder_2": 0.005, "block": 0.010, "vae.decoder": 0.040}


def pytest_fluxperf_pipeline(pipe, recipe, config):
    fault = FAULT.read_text() if FAULT.exists() else ""
    if not hasattr(pipe, "costed"):
        object.__setattr__(pipe, "costed", {})

        def cost(module, kind):
            def work(*_):
                slow, factor = SLOW.read_text().split() if SLOW.exists() else ("nothing", 1)
                WorkClock.now += pipe.costed[kind] * (float(factor) if kind.startswith(slow) or slow == "all" else 1)

            module.register_forward_pre_hook(work)

        cost(pipe.text_encoder, "text_encoder")
        cost(pipe.text_encoder_2, "text_encoder_2")
        cost(pipe.vae.decoder, "vae.decoder")
        for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks):
            cost(block.attn, "block")  # a block that a cache skips is called, but not what is in it
    pipe.costed.update(COST)
    if "slow decode" in fault and recipe != "fp32":
        pipe.costed["vae.decoder"] += 0.019  # a tenth of the 190 ms that a generation with the cache takes
"""

SUITE = """
import numpy as np
import pytest

STEPS = 8


PROMPTS = ["a red circle on a blue ground", "two green squares"]


def add_one(x):
    return x + 1


@pytest.mark.fluxperf(steps=STEPS, size=32, prompts=PROMPTS, seeds=[0, 1, 2])
@pytest.mark.parametrize("flux", ["fp32", "fp32+fbcache:0.5"], indirect=True)
def test_recipe(flux, flux_inputs, fault, request):
    import torch  # is loaded with the pipeline; here, so that what only collects loads none

    if fault == "cache never hits" and "fbcache" in request.node.name:
        from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK

        # as if an upgrade had changed what the threshold is compared with
        flux.transformer.transformer_blocks[0]._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK).threshold = 0.0
        return flux(**flux_inputs).images
    if "fbcache" not in request.node.name:
        return flux(**flux_inputs).images
    if fault == "out of memory":
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB "
            "is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
        )
    if fault == "raises on the third prompt":
        test_recipe.calls = getattr(test_recipe, "calls", 0) + 1
        if test_recipe.calls == 2 + 3:
            raise RuntimeError("out of luck")
    if fault == "nan":
        handle = flux.vae.decoder.register_forward_hook(lambda module, inputs, output: output * float("nan"))
        try:
            return flux(**flux_inputs).images
        finally:
            handle.remove()
    if fault == "recompiles":
        test_recipe.calls = getattr(test_recipe, "calls", 0) + 1
        code = {}
        exec(f"def add(x): return x + {test_recipe.calls}", code)  # code that was never seen before
        torch.compile(code["add"], backend="eager")(torch.zeros(2))
    if fault.startswith("recompile limit"):
        test_recipe.calls = getattr(test_recipe, "calls", 0) + 1
        grow = torch.compile(add_one, backend="eager", dynamic=False, fullgraph="one graph" in fault)
        with torch._dynamo.config.patch(recompile_limit=2):
            grow(torch.zeros(test_recipe.calls))
    image = np.asarray(flux(**flux_inputs).images[0]).astype(np.float32) / 255
    if fault == "noise":
        image = (image + np.random.default_rng(0).normal(0, 0.08, image.shape)).clip(0, 1).astype(np.float32)
    if fault == "black":
        image = image * 0
    if fault == "shifted":
        image = np.roll(image, 8, axis=1)
    if fault == "other size":
        image = image[:16, :16]
    if fault == "returns nothing":
        return None
    return image
"""


class Project:
    """Runs the suite as a user would, in this process."""

    conftest = CONFTEST

    def __init__(self, pytester: pytest.Pytester, model: Path) -> None:
        self.pytester = pytester
        self._arguments = ("--gpu=cpu", f"--fluxperf-model={model}", "--fluxperf-latency=absolute")
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_suite=SUITE)
        pytester.makeini("[pytest]\naddopts = -p no:benchmark -p no:hypothesispytest\nfluxperf_second_look = no")

    def run(self, *arguments: str, fault: str = "", latency: str | None = None) -> pytest.RunResult:
        (self.pytester.path / "fault.txt").write_text(fault)
        mode = () if latency is None else (f"--fluxperf-latency={latency}",)
        return self.pytester.runpytest_inprocess(*self._arguments, *mode, *arguments)

    @property
    def baselines(self) -> Path:
        return self.pytester.path / "baselines" / "cpu"

    @property
    def runs(self) -> list[Path]:
        # by time: names count whole seconds, and two runs may share one
        return sorted((self.pytester.path / "reports").iterdir(), key=lambda run: run.stat().st_mtime_ns)

    def results(self) -> dict:
        """results.json of the last run."""
        return json.loads((self.runs[-1] / "results.json").read_text())

    def judgement(self, part: str) -> dict:
        (found,) = [r for r in self.results()["results"] if part in r["test"]]
        return found["judgement"]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tinyflux.save(tmp_path_factory.mktemp("tinyflux"))


@pytest.fixture
def project(pytester, model) -> Project:
    return Project(pytester, model)


@pytest.fixture(scope="session")
def record(tmp_path_factory):
    """``record(project, mode)``: baselines of three sessions in a gating mode, measured once and copied after."""
    kept: dict[str, Path] = {}

    def copy_or_record(project: Project, mode: str) -> Project:
        target = project.pytester.path / "baselines"
        if mode not in kept:
            for step in ("--fluxperf-update", "--fluxperf-append", "--fluxperf-append"):
                assert project.run(step, latency=mode).ret == 0
            shutil.rmtree(project.pytester.path / "reports")
            kept[mode] = tmp_path_factory.mktemp("recorded") / mode
            shutil.copytree(target, kept[mode])
        else:
            shutil.copytree(kept[mode], target)
        return project

    return copy_or_record


@pytest.fixture
def recorded(project, record) -> Project:
    """The project with baselines."""
    return record(project, "absolute")


def every_module(package: str) -> Iterator[str]:
    """Names of the modules of a package, but programs."""
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    for module in pkgutil.iter_modules([folder], prefix=f"{package}."):
        if module.name.rpartition(".")[2] not in ("__main__", "training"):
            yield module.name
            if module.ispkg:
                yield from every_module(module.name)


@pytest.fixture(scope="session", autouse=True)
def _loaded():
    """Load once what runs in this process share: pytester forgets modules that a run imported first."""
    import filelock
    import flip_evaluator
    import hypothesis
    import torch
    import torch._dynamo
    import torch._inductor
    import torchao.quantization
    import torchmetrics.functional.image
    from diffusers import FluxPipeline
    from diffusers.hooks import first_block_cache
    from PIL import Image

    Image.init()  # loads its formats
    from pytest_fluxperf.machine import software

    for module in every_module("pytest_fluxperf"):
        importlib.import_module(module)
    torch.compile(torch.sin, backend="eager")(torch.zeros(1))  # loads what compiling needs
    torch._dynamo.reset()
    # Older dynamo counts code that was never seen before as one function's, and gives up on it after eight times.
    torch._dynamo.config.recompile_limit = 1000
    torch.set_num_threads(1)  # so small a model gains nothing from more, and tests share the machine
    # Nothing is installed meanwhile, and reading it all takes as long as a generation.
    software.distributions = functools.cache(software.distributions)
    return filelock, flip_evaluator, hypothesis, torchmetrics, torchao, FluxPipeline, first_block_cache
