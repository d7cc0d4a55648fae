"""Train `tiny`: ``python -m pytest_fluxperf.pipelines.tiny.training --out DIR``.

Stages: VAE, flow matching, distillation of guidance, export to ``DIR/model``. A checkpoint in ``DIR`` is written at
the end of every stage and of every sitting, so the same command goes on after any interruption. ``--smoke`` takes
the whole path in a minute or two on a CPU, with a model that has learned nothing.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from . import architecture, data, export, flow, vae
from .schedule import Clock


@dataclass(frozen=True)
class Plan:
    """Sizes of the training."""

    pictures: int = 300_000
    vae_steps: int = 1600
    vae_batch: int = 64
    vae_rate: float = 1e-3
    flow_steps: int = 14_000
    flow_batch: int = 512
    flow_rate: float = 1.2e-3
    distil_steps: int = 3_000
    distil_batch: int = 512
    distil_rate: float = 4e-4
    seed: int = 0


SMOKE = Plan(pictures=64, vae_steps=2, vae_batch=2, flow_steps=3, flow_batch=2, distil_steps=2, distil_batch=2)


class Training:
    """All stages, resumable."""

    def __init__(self, plan: Plan, out: Path, *, device: str, deadline: float) -> None:
        self.plan, self.out, self.device, self.deadline = plan, out, device, deadline
        self.compiled = device != "cpu"
        self.spent: dict[str, float] = {}
        self.networks = architecture.build(plan.seed)

    def run(self) -> bool:
        """Do what is left; returns False when the sitting ended before the training did."""
        started = time.monotonic()
        pictures = data.make(self.plan.pictures)
        pictures = data.Pictures(pictures.rows[: self.plan.pictures], pictures.captions[: self.plan.pictures])
        print(f"{len(pictures.captions)} layouts in {time.monotonic() - started:.0f} s", flush=True)
        if self.device != "cpu":
            torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass has crashed at these sizes
            torch.set_float32_matmul_precision("high")
        if not self._vae(pictures):
            return False
        started = time.monotonic()
        dataset = data.encoded(self.networks, pictures, self.device)
        print(f"{len(dataset.latents)} latents in {time.monotonic() - started:.0f} s", flush=True)
        teacher = self._flow(dataset)
        if teacher is None:
            return False
        student = self._distil(dataset, teacher)
        if student is None:
            return False
        record = {
            "plan": asdict(self.plan),
            "seconds": {name: round(seconds) for name, seconds in self.spent.items()},
            "hardware": torch.cuda.get_device_name() if self.device != "cpu" else "CPU",
            "torch": torch.__version__,
        }
        export.save(export.pipeline(self.networks, student), self.out / "model", record)
        print(f"exported to {self.out / 'model'}", flush=True)
        return True

    def _vae(self, pictures: data.Pictures) -> bool:
        model = self.networks.vae
        clock = self._clock("vae", self.plan.vae_steps)
        if state := self._load("vae"):
            model.load_state_dict(state["model"])
            clock.step = state["step"]
        model.to(self.device)
        if not clock.done:
            clock.step = 0  # so short a stage begins anew
            vae.train(
                model,
                pictures.rows[:40_000],
                clock=clock,
                batch=self.plan.vae_batch,
                rate=self.plan.vae_rate,
                device=self.device,
                compiled=self.compiled,
            )
            self._save("vae", clock, {"model": model.state_dict()})
        held_out = vae.psnr(model, vae.held_out_rows(4 if self.plan is SMOKE else 256), self.device)
        print(f"vae: {held_out:.1f} dB on held-out scenes", flush=True)
        return clock.done

    def _flow(self, dataset: flow.Dataset) -> flow.Denoiser | None:
        model = flow.Denoiser(self.networks).to(self.device)
        parameters = list(model.parameters())
        trainer = flow.Trainer(model, parameters, self.plan.flow_rate, self.plan.seed + 1, self.device)
        clock = self._clock("flow", self.plan.flow_steps)
        if state := self._load("flow"):
            trainer.restore(state)
            clock.step = state["step"]
        if not clock.done:
            if self.compiled:
                model.compile_transformer()
            flow.pretrain(trainer, dataset, clock=clock, batch=self.plan.flow_batch)
            self._save("flow", clock, trainer.state())
        return trainer.average if clock.done else None

    def _distil(self, dataset: flow.Dataset, teacher: flow.Denoiser) -> flow.Denoiser | None:
        model = copy.deepcopy(teacher).requires_grad_(True)
        parameters = list(model.transformer.parameters())
        trainer = flow.Trainer(model, parameters, self.plan.distil_rate, self.plan.seed + 2, self.device)
        clock = self._clock("distil", self.plan.distil_steps)
        if state := self._load("distil"):
            trainer.restore(state)
            clock.step = state["step"]
        if not clock.done:
            if self.compiled:
                model.compile_transformer()
                teacher.compile_transformer()
            flow.distil(trainer, teacher, dataset, clock=clock, batch=self.plan.distil_batch)
            self._save("distil", clock, trainer.state())
        return trainer.average if clock.done else None

    def _clock(self, name: str, steps: int) -> Clock:
        return Clock(name, steps, deadline=self.deadline)

    def _path(self, stage: str) -> Path:
        return self.out / f"{stage}.pt"

    def _load(self, stage: str) -> dict[str, Any] | None:
        path = self._path(stage)
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.spent[stage] = state["seconds"]
        print(f"{stage}: goes on at step {state['step']}", flush=True)
        return state

    def _save(self, stage: str, clock: Clock, state: dict[str, Any]) -> None:
        self.spent[stage] = self.spent.get(stage, 0.0) + time.monotonic() - clock.started
        scratch = self._path(stage).with_suffix(".tmp")
        torch.save({**state, "step": clock.step, "seconds": self.spent[stage]}, scratch)
        scratch.replace(self._path(stage))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit status 3 says that the sitting ended and the same command goes on."""
    parser = argparse.ArgumentParser(prog="python -m pytest_fluxperf.pipelines.tiny.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and of the exported model")
    parser.add_argument("--smoke", action="store_true", help="the whole path in a minute or two, on a CPU")
    parser.add_argument("--sitting", type=float, metavar="SECONDS", default=math.inf, help="stop after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = SMOKE if options.smoke else Plan()
    deadline = time.monotonic() + options.sitting
    device = "cpu" if options.smoke else options.device
    done = Training(plan, options.out, device=device, deadline=deadline).run()
    if not done:
        print("the sitting is over; the same command goes on", flush=True)
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
