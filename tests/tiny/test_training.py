"""The whole path of the training program, on a CPU, at its smallest."""

from __future__ import annotations

import json

import torch

from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.tiny.training import __main__ as training
from pytest_fluxperf.pipelines.tiny.training.schedule import Clock, cosine


def test_smoke_run_exports_a_pipeline_and_goes_on_after_an_interruption(tmp_path, capsys):
    torch.set_num_threads(1)
    assert training.main(["--out", str(tmp_path), "--smoke", "--sitting", "0"]) == 3
    assert "the same command goes on" in capsys.readouterr().out
    assert training.main(["--out", str(tmp_path), "--smoke"]) == 0
    check_model_folder(tmp_path / "model")
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["plan"]["vae_steps"] == 2
    assert training.main(["--out", str(tmp_path), "--smoke"]) == 0
    assert "distil: goes on at step 2" in capsys.readouterr().out


def test_learning_rate_rises_falls_and_ends_at_zero():
    values = [cosine(step / 100, warmup=0.1) for step in range(101)]
    assert values[0] == 0
    assert max(values) == values[10] == 1
    assert values[100] < 1e-9


def test_a_stage_ends_with_its_steps_or_with_the_sitting():
    clock = Clock("x", 2)
    clock.tick(torch.zeros(()))
    assert clock.running()
    clock.tick(torch.zeros(()))
    assert clock.done
    assert not clock.running()
    assert not Clock("x", 2, deadline=0.0).running()
