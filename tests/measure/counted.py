"""Counts the work of recipes on the embedded model in a process of its own: one line of JSON each."""

from __future__ import annotations

import sys

import msgspec
import torch

from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.work import count
from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.recipe import parse
from pytest_fluxperf.results import Prompt, Workload

SIZE, STEPS, WARMUPS = 64, 4, 2

torch.set_num_threads(1)
info = resolve("tiny")
prompt = Prompt(text="a red circle", seed=1)
workload = Workload(model="tiny", prompts=(prompt,), height=SIZE, width=SIZE, steps=STEPS, guidance=3.5)
inputs = GenerationInputs(workload, {"max_sequence_length": info.defaults.max_sequence_length})
pool = Pool(info, "cpu")


def generate(prepared):
    inputs.load(prompt)
    prepared.begin()
    return lambda: prepared.pipe(**inputs)


for recipe in sys.argv[1:]:
    prepared = pool.acquire(parse(recipe), steps=STEPS)
    for _ in range(WARMUPS):
        generate(prepared)()
    steps = prepared.steps
    ledger = count(generate(prepared), prepared.pipe, "cpu", lambda steps=steps: steps.decisions)
    print(msgspec.json.encode(ledger).decode(), flush=True)
    prepared.park()
