"""The whole path of the training program, on a CPU, at its smallest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pytest_fluxperf.pipelines import models
from pytest_fluxperf.pipelines.integrity import check_model_folder
from tools.tiny_training import __main__ as training
from tools.tiny_training import architecture, cost, evaluate, export, flow, scenes, text
from tools.tiny_training.schedule import Clock, cosine


def test_smoke_run_goes_on_after_an_interruption_exports_a_pipeline_and_measures_it(tmp_path, capsys):
    torch.set_num_threads(1)
    assert training.main(["--out", str(tmp_path), "--smoke", "--sitting", "0"]) == 3
    assert "the same command goes on" in capsys.readouterr().out
    assert training.main(["--out", str(tmp_path), "--smoke"]) == 0
    check_model_folder(tmp_path / "model")
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["plan"]["vae_steps"] == 2
    assert training.main(["--out", str(tmp_path), "--smoke"]) == 0
    assert "distil: goes on at step 2" in capsys.readouterr().out
    # and the evaluation of what it made
    model, docs = tmp_path / "model", tmp_path / "docs"
    common = ["--model", str(model), "--docs", str(docs), "--smoke"]
    assert evaluate.main(common) == 0
    assert {path.name for path in docs.iterdir()} == {"tiny-contact-sheet.png", "tiny-cache-curves.png"}
    figures = json.loads((model / "evaluation.json").read_text())
    assert set(figures) == {*evaluate.SECTIONS, "steps", "machine"}
    assert [len(figures[name]) for name in ("caching", "guidance", "precision")] == [10, 4, 2]
    card = (model / "README.md").read_text()
    assert all(f"**{title}" in card for title in ("Reconstruction", "Prompt adherence", "Guidance", "Step caches"))
    (model / "evaluation.json").write_text(json.dumps(figures | {"vae": {}}))
    assert evaluate.main([*common, "--only", "vae"]) == 0
    assert json.loads((model / "evaluation.json").read_text()) == figures
    with pytest.raises(SystemExit):  # a figure of 28 steps among figures of 8
        evaluate.main([*common[:-1], "--only", "vae"])
    assert "measure all again" in capsys.readouterr().err


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


def test_every_word_is_labelled_with_what_it_belongs_to():
    things = "a small red ring, a large blue star and a small pink cross in a row"
    scene = scenes.parse(f"{things} on a wavy gray background")
    labels = text.word_labels(scene)
    assert len(labels) == len(things.split()) + 1 + 5  # the comma is a word
    cells = {tuple(label[3:5]) for label in labels if label[0] != text.NONE}
    assert cells == {(3, 8), (8, 8), (13, 8)}
    assert labels[5][:3] == labels[8][:3] == [1, scenes.COLORS.index("blue"), scenes.SHAPES.index("star")]
    assert labels[4] == labels[9] == [text.NONE] * 7  # the comma and the "and"
    assert all(label[5:] == [4, 0] and label[0] == text.NONE for label in labels[-4:])
    assert text.scene_labels(scene)[3:6] == [0, scenes.COLORS.index("red"), scenes.SHAPES.index("ring")]


def test_pictures_drawn_along_the_way_are_the_pipelines():
    """What the training looks at is what FluxPipeline will make of the same weights."""
    torch.set_num_threads(1)
    networks = architecture.build(1)
    for parameter in networks.transformer.parameters():  # blocks begin as the identity, which would prove nothing
        torch.nn.init.normal_(parameter, std=0.05)
    model = flow.Denoiser(networks).eval()
    prompt = "a large green cross at the top on a plain gray background"
    drawn = flow.generate(model, [prompt], scale=3.0, told=True, steps=3, device="cpu")
    pipe = export.pipeline(networks, model)
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        prompt,
        height=256,
        width=256,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=architecture.MAX_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    assert torch.allclose(architecture.pack(drawn), latents, atol=1e-4)
    assert drawn.std() > 0.1


def test_the_cost_of_the_model_is_summed_up_over_processes():
    rounds = [
        {"loading_s": s, "picture_s": [9.0, s, s + 1], "memory_mib": 100 * s, "hashes": ["a", "a"], "torch": "2.13.0"}
        for s in (1.0, 3.0, 2.0)
    ]
    figures = cost.summary(rounds)
    assert (figures["loading_s"], figures["picture_s"], figures["fastest_picture_s"]) == (2.0, 2.5, 1.0)
    assert (figures["memory_mib"], figures["processes"], figures["identical"]) == (300.0, 3, True)
    rounds[1]["hashes"] = ["a", "b"]
    assert not cost.summary(rounds)["identical"]


def test_what_a_process_measures_of_the_cost(monkeypatch, capsys):
    tiny = models.resolve("tiny")
    quick = replace(tiny, defaults=replace(tiny.defaults, steps=1, size=64))
    monkeypatch.setattr(models, "resolve", {"tiny": quick}.get)
    monkeypatch.setattr(cost, "PICTURES", 2)
    monkeypatch.setattr(cost, "THREADS", torch.get_num_threads())
    assert cost.main(["--child"]) == 0
    figures = cost.summary([json.loads(capsys.readouterr().out)])
    assert figures["identical"]
    assert figures["picture_s"] > 0
