"""Train `tiny`: ``python -m tools.tiny_training --out DIR``.

Stages: VAE, reading, flow matching, distillation of guidance, export to ``DIR/model``. Checkpoints in ``DIR`` are
written along the way, so the same command goes on after any interruption. ``--smoke`` takes the whole path in a minute
or two on a CPU, with a model that has learned nothing.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from . import architecture, checker, data, export, flow, scenes, text, vae
from .schedule import Clock


@dataclass(frozen=True)
class Plan:
    """Sizes of the training."""

    pictures: int = 200_000
    vae_steps: int = 1600
    vae_batch: int = 64
    vae_rate: float = 1e-3
    text_scenes: int = 60_000
    text_steps: int = 600
    text_batch: int = 256
    text_rate: float = 3e-3
    flow_steps: int = 13_000
    flow_batch: int = 384
    flow_rate: float = 1.2e-3
    distil_steps: int = 2_500
    distil_batch: int = 384
    distil_rate: float = 4e-4
    looked_at: int = 64
    """Held-out prompts that the checker judges along the way."""
    sampling_steps: int = 28
    seed: int = 0


SMOKE = Plan(
    pictures=64, vae_steps=2, vae_batch=2, text_scenes=8, text_steps=2, text_batch=2, flow_steps=3, flow_batch=2,
    distil_steps=2, distil_batch=2, looked_at=1, sampling_steps=2,
)  # fmt: skip


class Training:
    """All stages, resumable."""

    def __init__(self, plan: Plan, out: Path, *, device: str, deadline: float) -> None:
        self.plan, self.out, self.device, self.deadline = plan, out, device, deadline
        self.compiled = device != "cpu"
        self.before: dict[str, float] = {}
        """Seconds that earlier sittings spent on a stage."""
        self.spent: dict[str, float] = {}
        self.seen: list[dict[str, Any]] = []
        """Share of objects accepted along the way."""
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
        if not self._vae(pictures) or not self._text():
            return False
        started = time.monotonic()
        dataset = data.encode_pictures(self.networks, pictures, self.device)
        print(f"{len(dataset.latents)} latents in {time.monotonic() - started:.0f} s", flush=True)
        teacher = self._flow(dataset)
        student = None if teacher is None else self._distil(dataset, teacher)
        if student is None:
            return False
        record = {
            "plan": asdict(self.plan),
            "seconds": {name: round(seconds) for name, seconds in self.spent.items()},
            "accepted": self.seen,
            "hardware": torch.cuda.get_device_name() if self.device != "cpu" else "CPU",
            "torch": torch.__version__,
        }
        export.save(export.pipeline(self.networks, student), self.out / "model", record)
        print(f"exported to {self.out / 'model'}", flush=True)
        return True

    def _vae(self, pictures: data.Pictures) -> bool:
        model = self.networks.vae
        clock = self._clock("vae", self.plan.vae_steps)
        if state := self._load("vae", clock):
            model.load_state_dict(state["model"])
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
        held_out, _ = vae.reconstruct(model, vae.held_out_rows(4 if self.plan is SMOKE else 256), self.device)
        print(f"vae: {held_out:.1f} dB on held-out scenes", flush=True)
        return clock.done

    def _text(self) -> bool:
        networks, plan = self.networks, self.plan
        clock = self._clock("text", plan.text_steps)
        if state := self._load("text", clock):
            networks.clip.load_state_dict(state["clip"])
            networks.t5.load_state_dict(state["t5"])
        if not clock.done:
            clock.step = 0  # so short a stage begins anew
            stream = scenes.samples(plan.seed, held_out=False)
            asked = text.questions(networks, list(itertools.islice(stream, plan.text_scenes)), self.device)
            reader = text.train(networks, asked, clock=clock, batch=plan.text_batch, rate=plan.text_rate)
            held_out = text.questions(networks, scenes.held_out_scenes(max(8, plan.looked_at)), self.device)
            words, whole = text.share_right(reader, held_out)
            print(f"text: {words:.1%} of held-out words and {whole:.1%} of scenes read rightly", flush=True)
            self._save("text", clock, {"clip": networks.clip.state_dict(), "t5": networks.t5.state_dict()})
        return clock.done

    def _flow(self, dataset: flow.Dataset) -> flow.Denoiser | None:
        plan = self.plan
        model = flow.Denoiser(self.networks).to(self.device)
        rates = {"rate": plan.flow_rate, "text_rate": plan.flow_rate * flow.TEXT_RATE}
        trainer = flow.Trainer(model, **rates, seed=plan.seed + 1, device=self.device)
        return self._stage("flow", plan.flow_steps, trainer, lambda clock: flow.pretrain(
            trainer, dataset, clock=clock, batch=plan.flow_batch, compiled=self.compiled))  # fmt: skip

    def _distil(self, dataset: flow.Dataset, teacher: flow.Denoiser) -> flow.Denoiser | None:
        plan = self.plan
        model = copy.deepcopy(teacher).requires_grad_(True)
        trainer = flow.Trainer(model, rate=plan.distil_rate, text_rate=0.0, seed=plan.seed + 2, device=self.device)
        return self._stage("distil", plan.distil_steps, trainer, lambda clock: flow.distil(
            trainer, teacher, dataset, clock=clock, batch=plan.distil_batch, compiled=self.compiled))  # fmt: skip

    def _stage(
        self, name: str, steps: int, trainer: flow.Trainer, train: Callable[[Clock], None]
    ) -> flow.Denoiser | None:
        """Train with checkpoints; returns the averaged model, or None where the sitting ended before the stage."""
        clock = self._clock(name, steps)
        if state := self._load(name, clock):
            trainer.restore(state)

        def keep() -> None:
            self._look(name, clock.step, trainer.average)
            self._save(name, clock, trainer.state())

        clock.checkpoint = keep
        if not clock.done:
            train(clock)
            keep()
        return trainer.average if clock.done else None

    def _look(self, stage: str, step: int, model: flow.Denoiser) -> None:
        """Let the checker judge pictures of held-out prompts."""
        asked = scenes.held_out_scenes(self.plan.looked_at)
        latents = flow.generate(
            model,
            [scenes.caption(scene) for scene in asked],
            scale=export.GUIDANCE,
            told=stage == "distil",
            steps=self.plan.sampling_steps,
            device=self.device,
        )
        pictures = vae.decode(self.networks.vae, latents).permute(0, 2, 3, 1).cpu().numpy()
        checks = [
            check for pixels, scene in zip(pictures, asked, strict=True) for check in checker.check(pixels, scene)
        ]
        accepted = sum(check.accepted for check in checks) / len(checks)
        self.seen.append({"stage": stage, "step": step, "share": round(accepted, 4)})
        parts = (("colour", sum(c.found is not None for c in checks)), ("shape", sum(c.shape for c in checks)),
                 ("place", sum(c.place for c in checks)))  # fmt: skip
        detail = ", ".join(f"{what} {count / len(checks):.0%}" for what, count in parts)
        print(f"{stage} {step}: {accepted:.1%} of {len(checks)} objects accepted ({detail})", flush=True)

    def _clock(self, name: str, steps: int) -> Clock:
        return Clock(name, steps, deadline=self.deadline)

    def _path(self, stage: str) -> Path:
        return self.out / f"{stage}.pt"

    def _load(self, stage: str, clock: Clock) -> dict[str, Any] | None:
        """The stage's checkpoint, if there is one; sets the clock to where it stood."""
        path = self._path(stage)
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        clock.step = state["step"]
        self.before[stage] = self.spent[stage] = state["seconds"]
        self.seen = state["seen"]
        print(f"{stage}: goes on at step {clock.step}", flush=True)
        return state

    def _save(self, stage: str, clock: Clock, state: dict[str, Any]) -> None:
        self.spent[stage] = self.before.get(stage, 0.0) + time.monotonic() - clock.started
        scratch = self._path(stage).with_suffix(".tmp")
        torch.save({**state, "step": clock.step, "seconds": self.spent[stage], "seen": self.seen}, scratch)
        scratch.replace(self._path(stage))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit status 3 says that the sitting ended and the same command goes on."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_training", description=__doc__)
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
