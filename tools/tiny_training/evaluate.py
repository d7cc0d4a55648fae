"""Measure a trained model and write its card: ``python -m tools.tiny_training.evaluate``.

Fits TeaCache's coefficients, then fills ``evaluation.json`` and ``README.md`` beside the weights, and draws the
contact sheet and the threshold curves. Everything is computed with held-out prompts through FluxPipeline itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.optimizations.calibration import fit_coefficients
from pytest_fluxperf.pipelines.pool import Pool, Prepared
from pytest_fluxperf.quality.images import Pixels, pictures_of
from pytest_fluxperf.quality.metrics import Metrics
from pytest_fluxperf.recipe import parse

from . import card, scenes, vae
from .checker import EXACT, Check, check

FBCACHE = (0.05, 0.1, 0.15, 0.2, 0.3)
TEACACHE = (0.1, 0.2, 0.3, 0.4, 0.6)
GUIDANCES = (1.0, 2.0, 3.5, 5.0)
STEPS = 28
GUIDANCE = 3.5
SECTIONS = ("teacache", "vae", "adherence", "caching", "guidance", "precision")
"""What is measured, in this order: the later ones use the coefficients that the first one fits."""


@dataclass(frozen=True)
class Plan:
    """How much is generated."""

    reconstructions: int = 128
    adherence: int = 200
    guidance: int = 50
    caching: int = 16
    calibration: int = 16


QUICK = Plan(reconstructions=32, adherence=60, guidance=15, caching=6, calibration=8)
SMOKE = Plan(reconstructions=2, adherence=1, guidance=1, caching=1, calibration=1)


class Evaluation:
    """Generates with one model; every method fills one section of the figures."""

    def __init__(self, folder: Path, plan: Plan, steps: int = STEPS, device: str = "cpu") -> None:
        self.folder, self.plan, self.steps, self.device = folder, plan, steps, device
        self.scenes = scenes.held_out_scenes(max(plan.adherence, plan.caching, plan.reconstructions))
        self.tokens = resolve(str(folder)).defaults.max_sequence_length

    def prepare(self, recipe: str) -> Prepared:
        """A pipeline under a recipe, released by the caller."""
        if not hasattr(self, "_pool"):
            self._pool = Pool(resolve(str(self.folder)), self.device)
        return self._pool.acquire(parse(recipe), steps=self.steps)

    def picture(self, prepared: Prepared, prompt: str, seed: int, guidance: float = GUIDANCE) -> Pixels:
        """One picture, float32 (256, 256, 3)."""
        prepared.begin()
        output = prepared.pipe(
            prompt,
            height=scenes.CANVAS,
            width=scenes.CANVAS,
            num_inference_steps=self.steps,
            guidance_scale=guidance,
            max_sequence_length=self.tokens,
            generator=torch.Generator().manual_seed(seed),
        )
        (pixels,) = pictures_of(output)
        return pixels

    def calibrate(self) -> dict[str, Any]:
        """TeaCache's coefficients for these weights, fitted on training captions and written to fluxperf.json."""
        rng = random.Random(1)
        prompts = [scenes.caption(s) for s in list(_take(scenes.samples(rng.randrange(2**31), held_out=False), 16))]
        prepared = self.prepare("fp32")
        fit = fit_coefficients(
            prepared.pipe,
            prompts[: self.plan.calibration],
            steps=self.steps,
            guidance=GUIDANCE,
            height=scenes.CANVAS,
            width=scenes.CANVAS,
            max_sequence_length=self.tokens,
        )
        prepared.release()
        path = self.folder / "fluxperf.json"
        settings = json.loads(path.read_text())
        settings["teacache_coefficients"] = [float(f"{c:.9g}") for c in fit.coefficients]
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        del self._pool  # what it holds knows the old coefficients
        return {"coefficients": settings["teacache_coefficients"], "r_squared": fit.r_squared, "pairs": len(fit.pairs)}

    def reconstruction(self) -> dict[str, Any]:
        """PSNR of the VAE on held-out scenes, and what the checker makes of objects that it drew again.

        The second bounds what it can accept in any generated picture.
        """
        prepared = self.prepare("fp32")
        rows = vae.held_out_rows(self.plan.reconstructions)
        psnr, pictures = vae.reconstruct(prepared.pipe.vae, rows, self.device, batch=8)
        prepared.release()
        seen = list(zip(pictures.permute(0, 2, 3, 1).numpy(), self.scenes, strict=False))
        mistaken = [
            judged.accepted
            for pixels, scene in seen
            for turn in range(1, len(scenes.SHAPES))
            for judged in check(pixels, _other_shapes(scene, turn))
        ]
        return {"psnr_db": psnr, "scenes": len(rows), **_accepted(seen), "mistaken": fmean(mistaken)}

    def adherence(self, guidance: float, count: int, sheet: list[tuple[str, Pixels]] | None = None) -> dict[str, Any]:
        """Share of asked-for objects that the checker accepts."""
        prepared = self.prepare("fp32")
        seen = []
        for seed, scene in enumerate(self.scenes[:count]):
            seen.append((self.picture(prepared, scenes.caption(scene), seed, guidance), scene))
        prepared.release()
        if sheet is not None:
            sheet += [(scenes.caption(scene), pixels) for pixels, scene in seen]
        checks = [judged for pixels, scene in seen for judged in check(pixels, scene)]
        return {
            "guidance": guidance,
            "prompts": count,
            "objects": len(checks),
            **_accepted(seen),
            "color": fmean(c.found is not None for c in checks),
            "once": fmean(c.once for c in checks),
            "shape": fmean(c.shape for c in checks),
            "size": fmean(c.size for c in checks),
            "place": fmean(c.place for c in checks),
        }

    def distances(self, recipes: Sequence[str]) -> list[dict[str, Any]]:
        """Computed steps of each recipe, and the distance of its pictures from the plain fp32 pipeline's."""
        metrics = Metrics(("psnr", "ssim", "flip"))
        prompts = [scenes.caption(scene) for scene in self.scenes[: self.plan.caching]]
        plain = self.prepare("fp32")
        references = [self.picture(plain, prompt, seed) for seed, prompt in enumerate(prompts)]
        plain.release()
        rows = []
        for recipe in recipes:
            prepared = self.prepare(recipe)
            computed, scores = [], []
            for seed, prompt in enumerate(prompts):
                pixels = self.picture(prepared, prompt, seed)
                computed.append(prepared.steps.decisions.count("1"))
                scores.append(metrics.compare(pixels, references[seed])[0])
            prepared.release()
            rows.append(
                {
                    "recipe": recipe,
                    "prompts": len(prompts),
                    "computed_steps": fmean(computed),
                    "ssim": median(s.ssim or 0 for s in scores),
                    "psnr_db": median(s.psnr_db or 0 for s in scores),
                    "flip": median(s.flip or 0 for s in scores),
                }
            )
            print(rows[-1], flush=True)
        return rows


def _other_shapes(scene: scenes.Scene, turn: int) -> scenes.Scene:
    """The scene with every object's shape replaced by the one ``turn`` places further in the grammar."""

    def turn_thing(thing: scenes.Thing) -> scenes.Thing:
        return replace(thing, shape=scenes.SHAPES[(scenes.SHAPES.index(thing.shape) + turn) % len(scenes.SHAPES)])

    return replace(scene, things=tuple(map(turn_thing, scene.things)))


def _accepted(seen: Sequence[tuple[Pixels, scenes.Scene]]) -> dict[str, float]:
    """Shares of asked-for objects that the checker accepts, with its tolerance of lost tips and without."""

    def share(checks: Iterable[Check]) -> float:
        return fmean(judged.accepted for judged in checks)

    return {
        "accepted": share(judged for pixels, scene in seen for judged in check(pixels, scene)),
        "accepted_exact": share(judged for pixels, scene in seen for judged in check(pixels, scene, EXACT)),
    }


def _take(stream: Iterable[Any], count: int) -> list[Any]:
    return [item for _, item in zip(range(count), stream, strict=False)]


def _sheet(pictures: Sequence[tuple[str, Pixels]], path: Path) -> None:
    """Pictures with their captions, six in a row."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // 6)
    figure = Figure(figsize=(13, 2.55 * rows), layout="constrained")
    for axes in np.ravel(figure.subplots(rows, 6, squeeze=False)):
        axes.axis("off")
    for (caption, pixels), axes in zip(pictures, figure.axes, strict=False):
        axes.imshow(pixels)
        axes.set_title("\n".join(textwrap.wrap(caption, 36)), fontsize=6.5)
    figure.savefig(path, dpi=110)


def _curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Computed steps against SSIM and FLIP."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("ssim", "flip"), strict=True):
        for name in ("fbcache", "teacache"):
            points = [row for row in rows if name in row["recipe"]]
            axes.plot([p["computed_steps"] for p in points], [p[key] for p in points], "o-", label=name)
            for p in points:
                where = (p["computed_steps"], p[key])
                axes.annotate(p["recipe"].split(":")[1], where, fontsize=8, xytext=(4, 4), textcoords="offset points")
        axes.set_xlabel(f"computed steps of {STEPS}")
        axes.set_ylabel(f"{key.upper()} against no cache")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def _sections(run: Evaluation, plan: Plan, docs: Path) -> dict[str, Callable[[], Any]]:
    """What measures each section of the card; two of them draw a picture into ``docs`` too."""

    def adherence() -> dict[str, Any]:
        sheet: list[tuple[str, Pixels]] = []
        value = run.adherence(GUIDANCE, plan.adherence, sheet)
        _sheet(sheet[:24], docs / "tiny-contact-sheet.png")
        return value

    def caching() -> list[dict[str, Any]]:
        rows = run.distances([f"fp32+fbcache:{t:g}" for t in FBCACHE] + [f"fp32+teacache:{t:g}" for t in TEACACHE])
        _curves(rows, docs / "tiny-cache-curves.png")
        return rows

    return {
        "teacache": run.calibrate,
        "vae": run.reconstruction,
        "adherence": adherence,
        "caching": caching,
        "guidance": lambda: [run.adherence(g, plan.guidance) for g in GUIDANCES],
        "precision": lambda: run.distances(["fp32+int8wo", "bf16"]),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    from pytest_fluxperf.pipelines.tiny import MODEL_DIR, PROMPTS_DIR

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the two pictures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these again and keep the other figures")
    parser.add_argument("--quick", action="store_true", help="fewer pictures: minutes on two cores")
    parser.add_argument("--smoke", action="store_true", help="one picture of each kind, at eight steps")
    options = parser.parse_args(arguments)
    options.docs.mkdir(parents=True, exist_ok=True)
    plan, steps = (SMOKE, 8) if options.smoke else (QUICK if options.quick else Plan(), STEPS)
    run = Evaluation(options.model, plan, steps, options.device)
    path = options.model / "evaluation.json"
    how = {"steps": steps, "machine": _machine(options.device)}
    figures = json.loads(path.read_text()) if options.only else how
    if any(figures[key] != value for key, value in how.items()):
        parser.error(
            f"--only: the other figures are of {figures['machine']}, {figures['steps']} steps: measure all again"
        )

    sections = _sections(run, plan, options.docs)
    for name in options.only or SECTIONS:
        figures[name] = sections[name]()
        print(name, figures[name], flush=True)
        # kept as soon as it is measured: the whole takes a while on a CPU
        path.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
        card.write(options.model)
    if not options.smoke:
        for name, count in (("default", 8), ("extended", 50)):
            lines = [scenes.caption(scene) for scene in scenes.held_out_scenes(count)]
            (PROMPTS_DIR / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _machine(device: str) -> str:
    if device != "cpu":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''} ({platform.machine()}), torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
