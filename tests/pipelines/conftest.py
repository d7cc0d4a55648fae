"""A small random FluxPipeline on disk, a pool that loads it, and a generation to compare."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tinyflux

from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.recipe import parse


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tinyflux.save(tmp_path_factory.mktemp("tinyflux"))


@pytest.fixture(scope="session")
def info(folder):
    return resolve(str(folder))


@pytest.fixture(scope="session")
def shared_pool(info):
    pool = Pool(info, "cpu")
    yield pool
    pool.close()


@pytest.fixture
def pool(shared_pool):
    yield shared_pool
    for base in shared_pool._bases.values():
        if base.owner is not None:
            base.owner.release()
        assert not base.layers


@pytest.fixture(scope="session")
def generate():
    """``generate(prepared, steps=…) -> pixels`` of one generation, in float32 (1, height, width, 3)."""

    def run(prepared, steps=tinyflux.STEPS, prompt=tinyflux.PROMPTS[0], size=tinyflux.SIZE, **arguments):
        import torch

        prepared.begin()
        return prepared.pipe(
            prompt,
            num_inference_steps=steps,
            height=size,
            width=size,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
            **arguments,
        ).images

    return run


@pytest.fixture
def prepare(pool):
    """``prepare(text) -> Prepared`` for eight steps, released when the test ends."""
    made = []

    def acquire(text, steps=tinyflux.STEPS):
        made.append(pool.acquire(parse(text), steps=steps))
        return made[-1]

    yield acquire
    for prepared in made:
        prepared.release()


@pytest.fixture(scope="session")
def untouched(info, generate):
    """``untouched(dtype) -> pixels`` of pipelines that no recipe ever touched."""
    from pytest_fluxperf.pipelines import loading

    class Bare:
        def __init__(self, pipe):
            self.pipe = pipe

        def begin(self):
            pass

    cache = {}

    def pixels(dtype="fp32"):
        if dtype not in cache:
            cache[dtype] = generate(Bare(loading.load(info, dtype, "cpu")))
        return cache[dtype]

    return pixels
