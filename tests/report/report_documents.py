"""Realistic run documents for the report tests, with small pictures on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from pytest_fluxperf.baseline.published import beside, load
from pytest_fluxperf.results import (
    RESULTS_FORMAT,
    Baseline,
    Block,
    Comparison,
    Environment,
    Finding,
    Generation,
    Hardware,
    Judgement,
    Kernel,
    KernelChange,
    KernelDiff,
    KernelTable,
    Measurement,
    Picture,
    Prompt,
    Quality,
    Result,
    Run,
    RunDocument,
    Sample,
    Similarity,
    Skipped,
    Telemetry,
    Workload,
)

STEPS = 28
BASELINES = Path(__file__).parents[2] / "baselines"

H100 = Hardware(
    kind="cuda",
    name="NVIDIA H100 80GB HBM3",
    memory_mib=81559,
    power_limit_w=700.0,
    host_cpu="Intel Xeon Platinum 8480C",
    host_cpus=26,
)
L40S = Hardware(
    kind="cuda", name="NVIDIA L40S", memory_mib=46068, power_limit_w=350.0, host_cpu="AMD EPYC 9354", host_cpus=16
)

H200 = Hardware(
    kind="cuda",
    name="NVIDIA H200",
    memory_mib=143771,
    power_limit_w=700.0,
    host_cpu="Intel Xeon Platinum 8480C",
    host_cpus=26,
)

_PACKAGES = {
    "accelerate": "1.10.1",
    "diffusers": "0.42.1",
    "jinja2": "3.1.6",
    "msgspec": "0.22.0",
    "numpy": "2.4.6",
    "para-attn": "0.3.38",
    "pillow": "13.0.0",
    "pytest": "9.2.0",
    "torch": "2.11.0",
    "torchao": "0.18.0",
    "transformers": "5.17.0",
    "triton": "3.6.0",
}

OLD = Environment(
    python="3.11.9",
    platform="Linux-6.8.0-x86_64-with-glibc2.36",
    packages=_PACKAGES,
    cuda="12.8",
    cudnn="9.10.2",
    driver="575.57.08",
    flags={"torch.backends.cuda.matmul.allow_tf32": "False"},
)
NEW = msgspec.structs.replace(
    OLD,
    packages=_PACKAGES | {"torch": "2.13.0", "triton": "3.8.0", "pillow": "13.0.1", "regex": "2026.7.1"},
)

TEXTS = (
    "A red fox asleep in fresh snow, morning light, shallow depth of field",
    "An isometric cutaway of a small bakery, warm lamps, flour in the air",
    "Portrait of an elderly watchmaker at his bench, brass gears, soft window light",
    "A lighthouse in a storm seen from the sea, long exposure",
    "Hand-lettered sign that says OPEN ALL NIGHT over a noodle bar in the rain",
    "A glass teapot with blooming tea on grey linen, studio photograph",
    "An astronaut tending tomatoes in a greenhouse on Mars",
    "A woodcut of a heron among reeds, two colours",
)

CENTRES = {
    "bf16": 7.11,
    "bf16+fa2": 7.18,
    "bf16+sage": 6.31,
    "bf16+fbcache:0.15": 3.21,
    "bf16+fbcache:0.2": 2.56,
    "bf16+fbcache:0.3": 2.05,
    "bf16+teacache:0.2": 5.51,
    "bf16+teacache:0.4": 3.48,
    "bf16+teacache:0.6": 2.65,
    "bf16+fora:start=4,interval=3": 3.40,
    "bf16+fp8": 7.28,
    "bf16+int8wo": 7.35,
    "bf16+compile": 5.02,
    "bf16+fp8+compile": 3.61,
    "bf16+fa2+fbcache:0.3": 2.06,
    "bf16+fbcache:0.3+compile": 1.71,
}
"""Recipes with a plausible median latency on an H100, seconds."""


def prompts(texts: Sequence[str] = TEXTS) -> tuple[Prompt, ...]:
    return tuple(Prompt(text=text, seed=1000 + i) for i, text in enumerate(texts))


def workload(texts: Sequence[str] = TEXTS, model: str = "flux-dev") -> Workload:
    return Workload(model=model, prompts=prompts(texts), height=1024, width=1024, steps=STEPS, guidance=3.5)


@cache
def _texture(seed: int, side: int) -> np.ndarray:
    """Noise with the spectrum of a photograph (1/f), so that a picture compresses like one."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1.0
    channels = []
    shared = np.fft.fft2(rng.standard_normal((side, side)))
    for _ in range(3):
        spectrum = (shared + 0.4 * np.fft.fft2(rng.standard_normal((side, side)))) / frequency**1.35
        plane = np.fft.ifft2(spectrum).real
        channels.append((plane - plane.min()) / np.ptp(plane))
    return np.stack(channels, -1)


@cache
def _scene(index: int, side: int, moved: float = 0.0) -> np.ndarray:
    """A landscape of sky, sun, hills and a tree, different for every ``index``; ``moved`` shifts the tree."""
    rng = np.random.default_rng(50 + index)
    y, x = np.mgrid[0:side, 0:side] / side
    hue = rng.random(3)

    def colour(base: Sequence[float], spread: float = 0.25) -> np.ndarray:
        return np.clip(np.array(base) + spread * (hue - 0.5), 0, 1)

    horizon = 0.45 + 0.2 * rng.random()
    pixels = colour((0.35, 0.55, 0.85))[None, None] * (0.6 + 0.5 * y[..., None] / horizon)
    sun = np.hypot(x - rng.uniform(0.15, 0.85), y - rng.uniform(0.12, 0.3))
    pixels = np.where((sun < 0.08)[..., None], colour((1.0, 0.85, 0.5)), pixels)
    for layer in range(3):
        ridge = horizon + 0.12 * layer + 0.07 * np.sin((3 + 2 * layer) * x + 6 * rng.random())
        green = colour((0.25 - 0.05 * layer, 0.5 - 0.1 * layer, 0.3 - 0.05 * layer), 0.4)
        pixels = np.where((y > ridge)[..., None], green, pixels)
    tree = rng.uniform(0.25, 0.75) + moved
    base = horizon + 0.3
    trunk = (np.abs(x - tree) < 0.02) & (y > base - 0.22) & (y < base)
    crown = np.hypot(x - tree, y - base + 0.27) < 0.11
    pixels = np.where(trunk[..., None], (0.3, 0.2, 0.15), pixels)
    pixels = np.where(crown[..., None], colour((0.55, 0.35, 0.2), 0.8), pixels)
    return np.clip(pixels + 0.5 * (_texture(index, side) - 0.5), 0, 1)


def _heat(error: np.ndarray) -> np.ndarray:
    """Black over violet and orange to pale yellow, as FLIP maps are."""
    stops = np.array([(0.0, 0.0, 0.02), (0.45, 0.1, 0.5), (0.95, 0.4, 0.35), (0.99, 0.99, 0.75)])
    return np.stack([np.interp(error, np.linspace(0, 1, len(stops)), stops[:, i]) for i in range(3)], -1)


class Pictures:
    """Writes small pictures under ``folder`` as the quality room would."""

    def __init__(self, folder: Path, side: int = 256) -> None:
        self.folder, self.side = folder, side
        (folder / "pictures").mkdir(parents=True, exist_ok=True)

    def save(self, pixels: np.ndarray) -> Picture:
        raw = (np.clip(pixels, 0, 1) * 255).astype(np.uint8)
        digest = hashlib.sha256(raw.tobytes()).hexdigest()
        path = self.folder / "pictures" / f"{digest[:16]}.png"
        if not path.exists():
            Image.fromarray(raw).save(path, compress_level=1)
        return Picture(path=f"pictures/{path.name}", sha256=digest, width=self.side, height=self.side)

    def reference(self, index: int) -> Picture:
        return self.save(_scene(index, self.side))

    def changed(self, index: int, seed: int, amount: float) -> tuple[Picture, Picture]:
        """The picture of a recipe, and its FLIP map."""
        shift = seed * 37 % self.side
        other = np.roll(_texture(900 + seed % 8, self.side), (shift, shift // 2), (0, 1))
        pixels = _scene(index, self.side, round(amount / 4, 2)) * (1 - amount) + other * amount
        error = np.clip(np.abs(pixels - _scene(index, self.side)).mean(-1) * 4, 0, 1)
        return self.save(pixels), self.save(_heat(error))


def decisions(computed: int, seed: int) -> str:
    """A cache that computes the first steps and then a seeded choice of the rest."""
    rng = np.random.default_rng(seed)
    rest = np.zeros(STEPS - 4, int)
    rest[rng.permutation(STEPS - 4)[: computed - 4]] = 1
    return "1111" + "".join(map(str, rest))


def result(
    recipe: str,
    *,
    test: str | None = None,
    centre: float | None = None,
    slower: float = 0.0,
    more_steps: int = 0,
    verdict: str = "passed",
    message: str = "",
    attribution: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    texts: Sequence[str] = TEXTS,
    runs: int = 3,
    loss: float = 0.0,
    pictures: Pictures | None = None,
    problems: tuple[str, ...] = (),
    unfit: tuple[str, ...] = (),
    generations: int | None = None,
    relative: bool = False,
    environment: Environment = OLD,
    seed: int = 0,
) -> Result:
    """One result: ``slower`` and ``loss`` (of SSIM) against a baseline of ``runs`` runs."""
    test = test or f"perf_tests/test_recipes.py::test_recipe[{recipe}]"
    seed = seed or int.from_bytes(hashlib.sha256(test.encode()).digest()[:3], "big")
    rng = np.random.default_rng(seed)
    load = workload(texts)
    centre = centre or CENTRES.get(recipe, 3.0)
    cached = any(name in recipe for name in ("cache", "fora"))
    count = len(load.prompts) if generations is None else generations
    per_prompt = (centre * (1 + (0.08 if cached else 0.002) * rng.standard_normal(len(load.prompts)))).tolist()
    base_ssim = {True: 0.88, False: 0.99}[cached] + 0.008 * rng.standard_normal(len(load.prompts))
    is_reference = recipe == "bf16"
    made, scores, references, maps = [], [], [], []
    for i in range(count):
        latency = per_prompt[i] * (1 + slower) * (1 + 0.0025 * rng.standard_normal())
        computed = (12 + i % 3 + more_steps) if cached else STEPS
        chosen = decisions(computed, seed + i)
        encode, decode = 0.021 + 0.0005 * rng.random(), 0.094 + 0.001 * rng.random()
        denoise = latency - encode - decode - 0.004
        weights = np.array([1.0 if c == "1" else 0.08 for c in chosen])
        picture = flip_map = None
        if pictures is not None:
            if is_reference:
                picture = pictures.reference(i)
            else:
                picture, flip_map = pictures.changed(i, seed + i, 0.08 + loss)
            references.append(pictures.reference(i))
            if flip_map is not None:
                maps.append(flip_map)
        ssim = 1.0 if is_reference else float(min(0.999, base_ssim[i] - loss))
        scores.append(
            Similarity(
                psnr_db=100.0 if is_reference else 18 + 14 * ssim**3,
                ssim=ssim,
                ms_ssim=1.0 if is_reference else ssim + (1 - ssim) / 2,
                flip=0.0 if is_reference else 0.3 * (1 - ssim),
                lpips=0.0 if is_reference else 0.5 * (1 - ssim),
            )
        )
        made.append(
            Generation(
                latency_s=latency,
                wall_s=latency * 1.002,
                reference_latency_s=7.11 * (1 + 0.002 * rng.standard_normal()) if relative else None,
                device_busy_s=latency * 0.985,
                text_encode_s=encode,
                denoise_s=denoise,
                decode_s=decode,
                steps_s=tuple((denoise * weights / weights.sum()).tolist()),
                decisions=chosen,
                picture=picture,
            )
        )
    memory = 33800.0 * (0.7 if "fp8" in recipe or "int8" in recipe else 1.0)
    facts = {"attention": "sdpa:flash", "dtype": "bfloat16", "compiled graphs": 1 if "compile" in recipe else 0}
    old_runs = tuple(
        Run(
            session=f"s{r}",
            process=4000 + r,
            time_utc=f"2026-0{r + 5}-11T08:30:00Z",
            environment=environment.digest,
            gpu_uuid=f"GPU-{r:04x}",
            samples=tuple(
                Sample(
                    latency_s=float(per_prompt[i] * (1 + 0.004 * (r - 1)) * (1 + 0.0025 * rng.standard_normal())),
                    wall_s=float(per_prompt[i] * 1.002),
                    reference_latency_s=7.11 if relative else None,
                    text_encode_s=0.021,
                    denoise_s=float(per_prompt[i] - 0.119),
                    decode_s=0.094,
                    decisions=decisions(12 + i % 3, seed + i) if cached else "1" * STEPS,
                    score=msgspec.structs.replace(
                        scores[i] if i < len(scores) else Similarity(), ssim=float(base_ssim[i])
                    )
                    if not is_reference
                    else Similarity(ssim=1.0, psnr_db=100.0, flip=0.0, lpips=0.0, ms_ssim=1.0),
                )
                for i in range(len(load.prompts))
            ),
            peak_memory_mib=memory,
            facts=facts | ({"attention": "sdpa:efficient"} if slower else {}),
        )
        for r in range(runs)
    )
    baseline = (
        Baseline(
            format=1,
            test=test,
            recipe=recipe,
            reference="bf16",
            hardware=H100,
            workload=load,
            environments={environment.digest: environment},
            runs=old_runs,
            tau0=0.007,
            nu0=4.0,
        )
        if runs
        else None
    )
    findings: list[Finding] = []
    if baseline is not None and made and verdict != "invalid":
        findings = _findings(verdict, centre, slower, more_steps, loss, memory, cached, count, relative)
    return Result(
        test=test,
        recipe=recipe,
        reference="bf16",
        workload=load,
        measurement=Measurement(
            generations=tuple(made),
            warmup_s=(centre * 1.6, centre * 1.01),
            prepare_s=21.4,
            peak_memory_mib=memory,
            facts=facts,
            telemetry=Telemetry(sm_clock_mhz=1755, power_w=652.0, temperature_c=61),
            problems=problems,
            unfit=unfit,
        ),
        quality=Quality(reference="bf16", scores=tuple(scores), references=tuple(references), flip_maps=tuple(maps)),
        baseline=baseline,
        judgement=Judgement(
            verdict=verdict,
            message=message or f"{verdict}: latency {centre:.3f} s (n = {count})",
            findings=tuple(findings),
            warnings=warnings,
            attribution=attribution,
            gated=verdict not in ("no baseline", "invalid"),
        ),
        duration_s=centre * (count + 2),
    )


def _findings(
    verdict: str,
    centre: float,
    slower: float,
    more_steps: int,
    loss: float,
    memory: float,
    cached: bool,
    n: int,
    relative: bool,
) -> list[Finding]:
    speed: dict[str, object] = {"metric": "latency", "unit": "s", "baseline": centre, "now": centre * (1 + slower)}
    change = slower + 0.001
    if relative:
        change = 1 / (1 + change) - 1
        speed = {"metric": "speed-up", "unit": "×", "baseline": 7.11 / centre, "now": 7.11 / centre * (1 + change)}
    moved = "passed"
    if abs(slower) > 0.02:
        moved = "regressed" if slower > 0 else "improved"
    if verdict == "inconclusive":
        moved = "inconclusive"
    found = [
        Finding(**speed, verdict=moved, change=change, low=change - 0.009, high=change + 0.009, tolerance=0.02, n=n),
        Finding(
            metric="peak memory",
            verdict="passed",
            unit="MiB",
            baseline=memory,
            now=memory,
            change=0.0,
            tolerance=0.02,
            n=n,
        ),
        Finding(
            metric="SSIM",
            verdict="regressed" if loss > 0.01 else "passed",
            baseline=0.88,
            now=0.88 - loss,
            change=-loss,
            tolerance=0.01,
            n=n,
            message=f"median SSIM {0.88:.3f} → {0.88 - loss:.3f}",
        ),
    ]
    if cached:
        found.append(
            Finding(
                metric="computed steps",
                verdict="regressed" if more_steps else "passed",
                baseline=13.0 * n,
                now=(13.0 + more_steps) * n,
                change=more_steps / 13,
                tolerance=0.02,
                n=n,
            )
        )
    return found


def document(results: Sequence[Result], **changes: object) -> RunDocument:
    plain = RunDocument(
        format=RESULTS_FORMAT,
        session="2026-11-21T09-14-03Z-7f3a",
        time_utc="2026-11-21T09:14:03Z",
        plugin="0.1.0",
        gpu="h100",
        hardware=H100,
        environment=NEW,
        command=("pytest", "perf_tests", "--gpu", "h100"),
        collected=len(results),
        gated=sum(r.judgement.gated for r in results),
        results=tuple(results),
        duration_s=1843.0,
    )
    return msgspec.structs.replace(plain, **changes)


def passing(folder: Path | None = None) -> RunDocument:
    """Sixteen recipes, all as they were, in an unchanged environment."""
    pictures = None if folder is None else Pictures(folder)
    return document([result(recipe, pictures=pictures) for recipe in CENTRES], environment=OLD)


def faster(folder: Path | None = None) -> RunDocument:
    """The recipes of :func:`passing` on a GPU that is a quarter faster."""
    pictures = None if folder is None else Pictures(folder)
    return document(
        [result(recipe, centre=0.78 * seconds, pictures=pictures) for recipe, seconds in CENTRES.items()],
        environment=OLD,
    )


def failing(folder: Path | None = None) -> RunDocument:
    """An upgrade of torch that slows a cache and blurs another recipe."""
    pictures = None if folder is None else Pictures(folder)
    made = {recipe: {} for recipe in CENTRES}
    made["bf16+fbcache:0.3"] = {
        "slower": 0.061,
        "more_steps": 5,
        "verdict": "regressed",
        "message": "latency 2.050 → 2.175 s, +6.1 % (tolerance 2 %, n = 8); first suspect: computed steps",
        "attribution": ("5 more computed steps per image", "denoising +6.4 %, other phases unchanged"),
    }
    made["bf16+fp8+compile"] = {
        "loss": 0.034,
        "verdict": "regressed",
        "message": "SSIM 0.880 → 0.846, −0.034 (tolerance 0.010, n = 8); first suspect: torchao",
    }
    made["bf16+sage"] = {"slower": -0.052, "verdict": "improved", "message": "latency −5.2 % (tolerance 2 %, n = 8)"}
    made["bf16+teacache:0.4"] = {
        "slower": 0.015,
        "verdict": "inconclusive",
        "message": "latency +1.6 % [+0.7, +2.5] may or may not exceed 2 % (n = 8)",
        "warnings": ("the interval reaches past the tolerance; repeat in another session or run fluxperf ab",),
    }
    return document(
        [result(recipe, pictures=pictures, **changes) for recipe, changes in made.items()],
        collected=18,
        skipped=(
            Skipped(
                test="perf_tests/test_recipes.py::test_recipe[bf16+fa3]",
                recipe="bf16+fa3",
                reason="fa3 needs the package flash-attn-3",
            ),
            Skipped(
                test="perf_tests/test_recipes.py::test_recipe[bf16+ulysses:2]",
                recipe="bf16+ulysses:2",
                reason="ulysses:2 needs 2 GPUs, 1 is visible",
            ),
        ),
        warnings=(
            "tail: 4 of 128 generations took over 1.10 times their prompt's centre, 3 of 384 in the baselines; rerun",
        ),
        published=beside(load(BASELINES), [workload()]),
    )


def compared(folder: Path | None = None) -> RunDocument:
    """``failing``, its worst test compared in turns with the old environment and profiled."""
    plain = failing(folder)
    change = msgspec.structs.replace
    first, *rest = sorted(plain.results, key=lambda result: result.judgement.verdict != "regressed")
    comparison = Comparison(
        mode="interleaved",
        blocks=(
            Block(old_s=(2.05, 2.06, 2.04, 2.07), new_s=(2.171, 2.18, 2.163, 2.192)),
            Block(old_s=(2.06, 2.05, 2.06, 2.05), new_s=(2.187, 2.173, 2.181, 2.175)),
        ),
        change=0.0598,
        low=0.0551,
        high=0.0646,
        decided=True,
        generations=16,
        old="0123456789ab",
        new="ba9876543210",
        packages={"torch": ("2.11.0", "2.13.0"), "triton": ("3.6.0", "3.8.0"), "regex": (None, "2026.7.1")},
    )
    found = KernelDiff(
        difference_s=0.1226,
        changes=(
            KernelChange(
                family="flash_fwd_kernel<bf16, 128, 128, 64>",
                change="vanished",
                baseline_calls=342,
                now_calls=0,
                baseline_s=0.3912,
                now_s=0.0,
            ),
            KernelChange(
                family="cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma",
                change="appeared",
                baseline_calls=0,
                now_calls=342,
                baseline_s=0.0,
                now_s=0.4833,
            ),
            KernelChange(
                family="nvjet_hsh_gemm",
                change="moved",
                baseline_calls=1881,
                now_calls=1881,
                baseline_s=1.102,
                now_s=1.1231,
            ),
        ),
        others_s=0.0021,
        idle_s=0.0042,
        unexplained_s=0.0031,
    )
    table = KernelTable(
        device="cuda",
        kernels=(
            Kernel(family="nvjet_hsh_gemm", calls=1881, time_s=1.1231),
            Kernel(family="cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", calls=342, time_s=0.4833),
            Kernel(family="elementwise", calls=5210, time_s=0.3107),
        ),
        busy_s=2.02,
        latency_s=2.18,
        traces=("traces/first-block-cache-first.json.gz",),
    )
    first = change(
        first,
        comparison=comparison,
        judgement=change(first.judgement, kernels=found),
        measurement=change(first.measurement, kernels=table),
    )
    return change(plain, results=(first, *rest))


def broken(folder: Path | None = None) -> RunDocument:
    """A body that raises, a black picture, an unfit machine, and a test without a baseline."""
    pictures = None if folder is None else Pictures(folder)
    return document(
        [
            result("bf16", pictures=pictures),
            result(
                "bf16+teacache:0.6",
                pictures=pictures,
                verdict="broken",
                generations=3,
                problems=("prompt 3: the body raised RuntimeError: CUDA error: an illegal memory access",),
                message="broken at prompt 3 of 8: RuntimeError: CUDA error: an illegal memory access",
            ),
            result(
                "bf16+compile",
                verdict="broken",
                generations=0,
                problems=("prompt 1: the picture is black (every pixel 0)",),
                message="broken: the picture of prompt 1 is black",
            ),
            result(
                "bf16+fp8",
                pictures=pictures,
                verdict="invalid",
                unfit=("SM clock throttled (sw power cap) during generation 4",),
                message="invalid twice: the GPU was throttled",
            ),
            result("bf16+fa2", pictures=pictures, verdict="no baseline", runs=0, message="no baseline on h100"),
        ]
    )


def ungated(folder: Path | None = None) -> RunDocument:
    """A run that judged nothing."""
    pictures = None if folder is None else Pictures(folder)
    return document([result(r, pictures=pictures, verdict="no baseline", runs=0) for r in ("bf16", "bf16+fbcache:0.3")])


HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(2)"> & "quotes" \'single\'',
    "null \x00 bell \x07 escape \x1b[31mred\x1b[0m delete \x7f c1 \x85 rtl \u202eevil\u202c zero\u200bwidth",
    "emoji 🦊👩‍🚀🏳️‍🌈 family 👨‍👩‍👧‍👦 and 日本語のプロンプト",
    "long " * 2000,
    "{{ 7*7 }} {% raw %} ${x} </title></style></script><!-- --> | pipe | `tick` **bold** [link](javascript:alert(3))",
    "line one\nline two\r\nline three\ttab",
    "]]> &amp; &lt;b&gt; \\u003cscript\\u003e",
    " ",
)


def hostile(folder: Path | None = None) -> RunDocument:
    """Prompts, names and messages that try to break out of every format."""
    pictures = None if folder is None else Pictures(folder)
    evil = '<b onmouseover="alert(4)">|`x`</b>'
    return document(
        [
            result("bf16", texts=HOSTILE, pictures=pictures),
            result(
                "bf16+fbcache:0.3",
                texts=HOSTILE,
                pictures=pictures,
                slower=0.06,
                verdict="regressed",
                test=f"perf_tests/test_x.py::test_evil[{evil}\n\x1b[31m]",
                message=f"latency +6 % {evil}",
                attribution=(evil,),
                warnings=(evil,),
            ),
        ],
        environment=msgspec.structs.replace(NEW, packages=NEW.packages | {"torch": evil}),
        command=("pytest", evil),
        warnings=(evil,),
    )


def many(count: int, folder: Path | None, side: int = 256) -> RunDocument:
    """``count`` tests of eight prompts, every picture different but for the references."""
    pictures = None if folder is None else Pictures(folder, side)
    names = list(CENTRES)
    made = []
    for i in range(count):
        recipe = names[i % len(names)]
        slower = 0.05 if i % 17 == 3 else 0.0
        made.append(
            result(
                recipe,
                test=f"perf_tests/test_suite_{i // 40}.py::test_recipe_{i}[{recipe}]",
                slower=slower,
                verdict="regressed" if slower else "passed",
                pictures=pictures,
            )
        )
    return document(made)
