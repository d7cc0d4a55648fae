"""``fluxperf calibrate``: a step cache's coefficients fitted to a model's weights."""

from __future__ import annotations

import argparse
import json

from pytest_fluxperf.bench import prompts
from pytest_fluxperf.cli.arguments import Commands, add_device, device
from pytest_fluxperf.errors import FluxPerfError


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("calibrate", help="fit a step cache to a model")
    parser.add_argument("cache", choices=["teacache"])
    parser.add_argument("--model", default="tiny", metavar="NAME|PATH")
    parser.add_argument("--prompts", default="default", metavar="SET|FILE")
    parser.add_argument("--steps", type=int)
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fit TeaCache's coefficients for a model and print them in the form that ``fluxperf.json`` takes."""
    from pytest_fluxperf.pipelines.models import resolve
    from pytest_fluxperf.pipelines.optimizations.calibration import fit_coefficients
    from pytest_fluxperf.pipelines.pool import Pool
    from pytest_fluxperf.recipe import parse

    if options.steps is not None and options.steps < 2:
        raise FluxPerfError("--steps: at least 2, since the change from one step to the next is fitted")
    info = resolve(options.model)
    defaults, place = info.defaults, device(options.device)
    chosen = prompts.load(options.prompts, (0,), folder=info.prompts or prompts.FOLDER)
    steps = options.steps or defaults.steps
    pool = Pool(info, place)
    prepared = pool.acquire(parse("fp32" if place == "cpu" else defaults.dtype), steps=steps)
    fit = fit_coefficients(
        prepared.pipe,
        [prompt.text for prompt in chosen],
        steps=steps,
        guidance=defaults.guidance,
        height=defaults.size,
        width=defaults.size,
        max_sequence_length=defaults.max_sequence_length,
    )
    pool.close()
    print(json.dumps({"teacache_coefficients": [float(f"{c:.9g}") for c in fit.coefficients]}))
    print(f"fitted to {len(fit.pairs)} pairs of steps, R² {fit.r_squared:.3f}")
    return 0
