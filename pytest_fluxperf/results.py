"""The records that cross every border: worker to controller, session to report, run to baseline.

All are frozen :class:`msgspec.Struct`; JSON is their only serialized form. A :class:`Measurement` holds
raw numbers and never a judgement; a :class:`Judgement` holds verdicts and never measures; a
:class:`Result` is both for one test, and a :class:`RunDocument` is what ``results.json`` contains.

Units are in the names: ``_s`` seconds, ``_mib`` MiB, ``_db`` decibel. Fractions are plain (0.02 is 2 %).
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

RESULTS_FORMAT = 3
"""Version of ``results.json``; raised when an old reader could misread a new file."""

PSNR_CAP_DB = 100.0
"""PSNR of identical pictures, which is infinite and has no place in JSON (mean squared error 1e-10)."""

Verdict = Literal["passed", "improved", "regressed", "broken", "invalid", "no baseline", "inconclusive"]

SEVERITY: dict[Verdict, int] = {
    "broken": 0, "regressed": 1, "invalid": 2, "no baseline": 3, "inconclusive": 4, "improved": 5, "passed": 6,
}  # fmt: skip
"""Sort key of a verdict: the worst first."""

FAILING: frozenset[Verdict] = frozenset({"broken", "regressed", "invalid", "no baseline"})
"""Verdicts that fail a test without ``--fluxperf-strict``."""


TRACES = "traces"
"""Folder of the chrome traces in a run's folder."""


# Types of what reaches a page, the file system or arithmetic: what is made by hand is refused when it is read.

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
RelativePath = Annotated[
    str, msgspec.Meta(pattern=r"^(?!/)(?!(.*/)?\.\.?(/|$))[^\\\x00-\x1f]+$", min_length=1, max_length=1024)
]
"""Of a file below the folder of ``results.json`` (or of the baseline), by its plain name: without ``..``."""
HttpsUrl = Annotated[str, msgspec.Meta(pattern=r"^https://[A-Za-z0-9.-]+(/[!-~]*)?$", max_length=2048)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Figure = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A number that is shown or drawn: JSON has no infinity, and no figure of ours comes near these bounds."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=65536)]
Decisions = Annotated[str, msgspec.Meta(pattern="^[01]*$", max_length=10_000)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of all records."""


class Prompt(Record, frozen=True, kw_only=True):
    """One picture to make: a prompt and the seed of its initial latents (a CPU generator)."""

    text: str
    seed: int


class Workload(Record, frozen=True, kw_only=True):
    """What is generated. Two measurements are comparable only when their workloads are equal."""

    model: str
    prompts: tuple[Prompt, ...]
    height: int
    width: int
    steps: int
    guidance: Figure

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the workload."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]


class Picture(Record, frozen=True, kw_only=True):
    """A picture on disk: ``path`` is relative to the folder of ``results.json`` (or of the baseline)."""

    path: RelativePath
    sha256: Sha256
    width: Pixels
    height: Pixels

    def file(self, folder: Path) -> Path | None:
        """Its file below ``folder``; None where there is none. A link does not count: it may lead anywhere."""
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            return None
        try:
            place = folder.resolve() / path
            return place if place.is_file() and place.resolve() == place else None
        except (OSError, ValueError):  # a name that no file can have
            return None


class Generation(Record, frozen=True, kw_only=True):
    """One timed generation, for ``workload.prompts[index]``.

    ``latency_s`` is what the gate judges: time by the synchronized device clock (CUDA events), or the
    wall clock on a CPU. ``reference_latency_s`` is the reference recipe's generation of the same prompt,
    timed directly beside this one (only in relative mode, see DESIGN: CPU rule).
    """

    latency_s: Seconds
    wall_s: Seconds
    reference_latency_s: Seconds | None = None
    device_busy_s: Seconds | None = None
    text_encode_s: Seconds | None = None
    denoise_s: Seconds | None = None
    decode_s: Seconds | None = None
    steps_s: tuple[Seconds, ...] = ()
    """Seconds of each denoising step, empty where steps cannot be seen."""
    decisions: Decisions | None = None
    """One character a step: ``1`` computed, ``0`` reused from a cache; None where steps cannot be seen."""
    picture: Picture | None = None
    host_s: Seconds | None = None
    """Seconds that a fixed piece of work took on the host right after it; None where it was not timed."""

    @property
    def computed_steps(self) -> int | None:
        """Denoising steps that ran the whole transformer."""
        return None if self.decisions is None else self.decisions.count("1")

    @property
    def cached_steps(self) -> int | None:
        """Denoising steps answered from a step cache."""
        return None if self.decisions is None else self.decisions.count("0")


class Similarity(Record, frozen=True, kw_only=True):
    """Image metrics of one generation against the reference picture; None where not computed.

    ``psnr_db`` (capped at :data:`PSNR_CAP_DB`), ``ssim`` and ``ms_ssim`` rise with quality, ``flip`` and
    ``lpips`` fall.
    """

    psnr_db: Figure | None = None
    ssim: Figure | None = None
    ms_ssim: Figure | None = None
    flip: Figure | None = None
    lpips: Figure | None = None


class OwnMetric(Record, frozen=True, kw_only=True):
    """An image metric that the project brought, with the value of each prompt against its reference picture."""

    values: tuple[Figure, ...]
    higher_is_better: bool
    tolerance: Figure
    """Fall (or rise, where lower is better) of the median that is still no regression."""
    same: tuple[Figure, ...] = ()
    """Values of the stored pictures with themselves, where it is these that were compared with."""


NONE, BASELINE = "none", "baseline"
"""References that are no recipe: no comparison, and the baseline's stored pictures."""


class Quality(Record, frozen=True, kw_only=True):
    """Per prompt, in the order of ``workload.prompts``: metrics, the reference picture, and the FLIP map."""

    reference: str
    """Canonical recipe of the reference, or :data:`BASELINE`."""
    scores: tuple[Similarity, ...]
    references: tuple[Picture, ...] = ()
    flip_maps: tuple[Picture, ...] = ()
    own: dict[str, OwnMetric] = {}
    """The project's own metrics by name."""


class PictureScores(Record, frozen=True, kw_only=True):
    """What pictures were compared with; None where they were not."""

    reference: Quality | None = None
    """The test's pictures, with those of the reference recipe in the same session."""
    stored: Quality | None = None
    """The pictures of a test without our pipeline, with its own stored ones: there are no others."""
    drift: Quality | None = None
    """The reference recipe's pictures, with the stored ones."""

    @property
    def test(self) -> Quality | None:
        """The scores of the test's own pictures, whatever they were compared with."""
        return self.reference if self.stored is None else self.stored


class Telemetry(Record, frozen=True, kw_only=True):
    """State of the device around the measured generations (NVML); None where it cannot be read."""

    sm_clock_mhz: Count | None = None
    power_w: Figure | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    other_processes: tuple[int, ...] = ()


class Kernel(Record, frozen=True, kw_only=True):
    """Kernels of one family (on a CPU: operators) in one generation."""

    family: str
    """Name without what changes from build to build: tile sizes, template arguments, running numbers, hashes."""
    calls: Count
    time_s: Seconds
    """Summed duration, seconds an image; on a CPU without the operators called inside."""


class KernelTable(Record, frozen=True, kw_only=True):
    """Where the device spent one generation, profiled outside of the measured ones."""

    device: Literal["cuda", "cpu"]
    kernels: tuple[Kernel, ...]
    """All families, the longest first."""
    busy_s: Seconds
    """Seconds in which at least one kernel (on a CPU, one operator) ran."""
    latency_s: Seconds | None = None
    """Latency of the same prompt when it was measured, without the profiler; less ``busy_s`` the device was idle."""
    traces: tuple[RelativePath, ...] = ()
    """Chrome traces (gzipped JSON, for Perfetto) of the first steps and the last, relative to the run's folder."""


Phase = Literal["text", "computed", "cached", "decoding", "other"]
"""Part of a generation: text encoding, denoising steps that ran the whole transformer and those that a step cache
answered (each up to the next step's beginning), decoding, and what lies between and around them."""


class Work(Record, frozen=True, kw_only=True):
    """What was done: counts that repeat exactly, and how long the device took for it."""

    calls: int
    """Calls of Python functions."""
    operators: int | None = None
    """Operators that torch's dispatcher ran, those that other operators call included; None on a GPU."""
    kernels: int | None = None
    """Kernels, copies and fills that ran on the GPU; None on a CPU."""
    device_s: float | None = None
    """Their summed duration, seconds; None on a CPU."""


class PhaseWork(Record, frozen=True, kw_only=True):
    """The work of one phase in one generation."""

    phase: Phase
    times: int
    """How often the phase came: for steps, how many there were."""
    total: Work
    each: Work | None = None
    """The work of a typical step: of each count the most frequent value, of the time the median."""


FAMILY_SHARE = 0.005
"""A family with less than this share of a generation's device time and of its count is not named in a ledger."""

MOST_FAMILIES = 24
"""Families that a ledger names at most; at some 150 bytes each it stays at a few KiB."""

OTHER_FAMILIES = "(others)"
"""What stands for the families that are not named."""


class FamilyWork(Record, frozen=True, kw_only=True):
    """Kernels of one family (on a CPU: operators of one name) in one generation, by phase."""

    family: str
    """As in :class:`Kernel`."""
    counts: dict[Phase, int]
    device_s: dict[Phase, float] = {}
    """Summed duration, seconds; empty on a CPU."""


class Ledger(Record, frozen=True, kw_only=True):
    """The work of one generation of the first prompt, counted outside of the timed ones."""

    device: Literal["cuda", "cpu"]
    phases: tuple[PhaseWork, ...]
    """The phases that came, in the order of :data:`Phase`."""
    families: tuple[FamilyWork, ...] = ()
    """The families that matter, the largest first, and the sum of the others, so that all add up to the totals."""
    sm_clock_mhz: int | None = None
    """Median clock of the GPU's multiprocessors in that generation, where NVML tells."""

    def phase(self, name: Phase) -> PhaseWork | None:
        """The work of a phase, or None where it did not come."""
        return next((work for work in self.phases if work.phase == name), None)

    @property
    def device_s(self) -> float | None:
        """Summed duration of all kernels, seconds; None on a CPU."""
        times = [work.total.device_s for work in self.phases]
        return None if None in times else sum(time for time in times if time is not None)


class Answer(Record, frozen=True, kw_only=True):
    """What a transformer answered to one of the fixed inputs, against the reference recipe's answer."""

    sigma: float
    """Noise level of the call, before the scheduler's shift."""
    error: float
    """Relative L2 error, ``|answer - reference| / |reference|``."""
    cosine: float
    rounding: float
    """The same error of the reference recipe itself when its inputs move by one rounding of its dtype."""
    sketch: tuple[float, ...] = ()
    """Random projections of the answer, from which the distance of two stored answers is estimated."""
    digest: str = ""
    """Sixteen hexadecimal digits of the answer's SHA-256; equal ones are bit-identical answers."""


class Fidelity(Record, frozen=True, kw_only=True):
    """How far a recipe's transformer answers from the reference recipe's, on the same inputs and any weights."""

    reference: str
    """Canonical recipe of the reference."""
    lossless: bool
    """Whether nothing but rounding may lie between them: no token changes the picture by design, one dtype."""
    answers: tuple[Answer, ...]


class WorkChange(Record, frozen=True, kw_only=True):
    """A count of a ledger that is not what its baseline has."""

    what: Literal["steps", "kernels", "operators", "calls"]
    phase: Phase
    before: int
    now: int
    each: bool = False
    """The counts are of one typical step, else of the whole phase."""

    @property
    def difference(self) -> int:
        """How many more."""
        return self.now - self.before


class FamilyChange(Record, frozen=True, kw_only=True):
    """What the kernels (on a CPU: the operators) of one family did in one phase."""

    family: str
    phase: Phase
    before: int
    now: int
    before_s: Figure = 0.0
    now_s: Figure = 0.0

    @property
    def change_s(self) -> float:
        """Seconds of the device that they take more."""
        return self.now_s - self.before_s


class KernelChange(Record, frozen=True, kw_only=True):
    """What one family of kernels did between two tables."""

    family: str
    change: Literal["appeared", "vanished", "moved"]
    baseline_calls: Count
    now_calls: Count
    baseline_s: Seconds
    now_s: Seconds

    @property
    def change_s(self) -> float:
        """Seconds an image that it takes more."""
        return self.now_s - self.baseline_s


class KernelDiff(Record, frozen=True, kw_only=True):
    """A difference in latency taken apart; the four parts sum to ``difference_s``, seconds an image."""

    difference_s: Figure
    changes: tuple[KernelChange, ...]
    """The families that matter, the largest change first."""
    others_s: Figure
    """What all families that are not listed changed by."""
    idle_s: Figure | None
    """More time in which the device had nothing to do, as far as the profiled prompt and the difference both show it;
    None where the unprofiled latency is not known."""
    unexplained_s: Figure
    """What is left: noise between generations, kernels that overlap, work outside of the profile."""


class Measurement(Record, frozen=True, kw_only=True):
    """Raw numbers of one test in one process; never changed after the runner made it."""

    generations: tuple[Generation, ...]
    warmup_s: tuple[Seconds, ...] = ()
    prepare_s: Seconds | None = None
    """Seconds spent to load the model and apply the recipe, before any warm-up."""
    peak_memory_mib: Figure | None = None
    """Peak allocated device memory, or on a CPU the peak resident memory of the process."""
    graph_breaks: int = 0
    """Graph breaks during warm-up and measured generations together."""
    recompiles: int = 0
    """Compilations during the measured generations (there must be none)."""
    recompile_reasons: tuple[str, ...] = ()
    facts: dict[str, Any] = {}
    """What was really used: attention back end, dtypes, compiled graphs, quantized layers, ..."""
    telemetry: Telemetry | None = None
    kernels: KernelTable | None = None
    """Profile of one more generation, where one was asked for."""
    ledger: Ledger | None = None
    """Work of one more generation; None where it was not counted."""
    fidelity: Fidelity | None = None
    """None where there is no reference recipe, or the pipeline takes no fixed inputs."""
    problems: tuple[str, ...] = ()
    """Why the result is ``broken``: bad pictures, a body that raised, an optimization that is not active."""
    out_of_memory: bool = False
    """Whether it is broken because the device's memory did not suffice."""
    unfit: tuple[str, ...] = ()
    """Why the machine was not fit to measure (verdict ``invalid``)."""


class Sample(Record, frozen=True, kw_only=True):
    """What a baseline keeps of one generation."""

    latency_s: Seconds
    wall_s: Seconds
    reference_latency_s: Seconds | None = None
    text_encode_s: Seconds | None = None
    denoise_s: Seconds | None = None
    decode_s: Seconds | None = None
    decisions: Decisions | None = None
    score: Similarity = Similarity()
    own: dict[str, Figure] = {}
    """Values of the project's own metrics."""
    picture: Sha256 | None = None
    """sha256 of the picture; the file is ``<gpu>/images/<sha256>.png`` under the baselines folder."""
    reference_picture: Sha256 | None = None
    """sha256 of the reference recipe's picture, likewise."""

    @property
    def computed_steps(self) -> int | None:
        """Denoising steps that ran the whole transformer."""
        return None if self.decisions is None else self.decisions.count("1")


class Run(Record, frozen=True, kw_only=True):
    """One measured run of a test, as a baseline keeps it: raw values, so a better rule can re-judge it."""

    session: str
    """Identifies the pytest session; runs of one session share it."""
    process: int
    time_utc: str
    environment: str
    """Digest of the environment, a key of ``Baseline.environments``."""
    gpu_uuid: str | None = None
    samples: tuple[Sample, ...]
    peak_memory_mib: Figure | None = None
    facts: dict[str, Any] = {}
    sm_clock_mhz: int | None = None
    device_busy: Figure | None = None
    """Share of the generations in which the device computed, where NVML tells."""
    kernels: KernelTable | None = None
    ledger: Ledger | None = None
    fidelity: Fidelity | None = None
    host_s: Seconds | None = None
    """Seconds of the fixed piece of work beside the generations, their median."""


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Facts without nesting: ``{"quantization": {"kind": 1}}`` becomes ``{"quantization kind": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        flat |= flat_facts(value, f"{name} ") if isinstance(value, dict) else {name: value}
    return flat


def median_latency_s(generations: Sequence[Generation] | Sequence[Sample]) -> float:
    """Median latency in seconds; raises :class:`statistics.StatisticsError` where there is no generation."""
    return statistics.median(made.latency_s for made in generations)


class Hardware(Record, frozen=True, kw_only=True):
    """What a baseline belongs to; never a live reading. ``memory_mib`` is the card's (or None on a CPU)."""

    kind: Literal["cuda", "cpu"]
    name: str
    """Product name and form from NVML (``NVIDIA H100 80GB HBM3``), or the CPU's model name."""
    memory_mib: Count | None = None
    mig_profile: str | None = None
    power_limit_w: Figure | None = None
    host_cpu: str = ""
    host_cpus: Count = 0


class Environment(Record, frozen=True, kw_only=True):
    """The software under test: recorded with every run, compared, never part of a baseline's key."""

    python: str
    platform: str
    packages: dict[str, str]
    """Every installed distribution (normalized name) and its version."""
    cuda: str | None = None
    cudnn: str | None = None
    driver: str | None = None
    runtimes: dict[str, str] = {}
    """Libraries that no list of packages shows (cuBLAS, NCCL, kernels from the hub) and their versions; one that is
    not named is not known."""
    flags: dict[str, str] = {}
    """Environment variables and torch settings that change speed (TF32, thread counts, ...)."""

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the environment."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]


class Baseline(Record, frozen=True, kw_only=True):
    """One baseline file: the pinned runs of one test on one kind of hardware."""

    format: int
    test: str
    """pytest node id, relative to the root folder."""
    recipe: str | None
    reference: str
    hardware: Hardware
    workload: Workload
    environments: dict[str, Environment]
    runs: tuple[Run, ...]
    tau0: float
    """Prior between-session standard deviation of log latency (GATE.md: 0.007)."""
    nu0: float
    """Prior degrees of freedom of ``tau0`` (GATE.md: 4)."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The generations of all runs."""
        return tuple(sample for run in self.runs for sample in run.samples)

    @property
    def by_time(self) -> tuple[Run, ...]:
        """The runs in the order in which they were measured, which need not be that in which they were stored."""
        return tuple(sorted(self.runs, key=lambda run: run.time_utc))

    @property
    def newest(self) -> Run:
        """The run that was measured last; raises IndexError where there is none."""
        return self.by_time[-1]

    @property
    def newest_environment(self) -> Environment | None:
        """What the newest run was measured in; None where there is none or it is not known."""
        return self.environments.get(self.newest.environment) if self.runs else None


class Finding(Record, frozen=True, kw_only=True):
    """One judged quantity of one test."""

    metric: str
    """``latency``, ``speed-up``, ``computed steps``, ``peak memory``, ``SSIM``, ``PSNR``, ``LPIPS``, ..."""
    verdict: Verdict
    unit: str = ""
    baseline: Figure | None = None
    now: Figure | None = None
    change: Figure | None = None
    """Relative change (latency, memory, steps) or difference (quality metrics); positive is more."""
    low: Figure | None = None
    high: Figure | None = None
    """Bounds of the change's interval, where the rule has one."""
    tolerance: Figure | None = None
    n: int = 0
    message: str = ""
    """One clause with the numbers, ready to be shown."""
    remedy: str = ""
    """What to do about it, where something can be done."""
    bound: bool = False
    """Whether it is a floor or ceiling of the test itself, which no baseline moves."""


class Judgement(Record, frozen=True, kw_only=True):
    """The verdict on one test and what it rests on."""

    verdict: Verdict
    message: str
    """One line: metric, baseline, now, change, tolerance, n, and the first suspect."""
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()
    """Why it moved, the strongest reason first."""
    kernels: KernelDiff | None = None
    """The difference to the baseline by kernels, where both sides were profiled."""
    gated: bool = True
    """False when nothing could be compared with (no baseline, skipped)."""
    packages_cleared: bool = False
    """True where the old environment is as slow, so that no package which differs can be to blame."""


class Block(Record, frozen=True, kw_only=True):
    """Fresh processes of the old and the new environment over the same prompts: pair ``k`` is prompt ``k % n``."""

    old_s: tuple[Seconds, ...]
    new_s: tuple[Seconds, ...]


class Comparison(Record, frozen=True, kw_only=True):
    """An A/B comparison: two environments that took turns on one device."""

    mode: Literal["interleaved", "alternating"]
    """Interleaved: the turn passed between generations (AB BA AB ...). Alternating: whole processes took turns (ABBA);
    each block then holds two passes a side."""
    reason: str = ""
    """Why whole processes took turns: two copies did not fit in memory, or it was asked for."""
    blocks: tuple[Block, ...]
    change: Figure
    """Relative change of the latency; positive is slower."""
    low: Figure
    high: Figure
    """One-sided bounds at 1 - .05 / 3 each."""
    decided: bool
    """False when the blocks ended before the data could tell."""
    generations: Count
    """Measured generations of both sides together."""
    warmups: Count = 0
    """Warm-up generations of both sides together."""
    old: str
    new: str
    """Digests of the environments."""
    packages: dict[str, tuple[str | None, str | None]] = {}
    """What differs between them: name to (old, new), None where absent."""
    traces: tuple[RelativePath, ...] = ()
    """Chrome traces of a generation of each side, where both were profiled, relative to the run's folder."""


class Result(Record, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """Everything known of one test in one session."""

    test: str
    """pytest node id."""
    recipe: str | None
    reference: str
    workload: Workload
    measurement: Measurement
    quality: Quality | None = None
    drift: Quality | None = None
    """The reference recipe's pictures now against the baseline's stored ones."""
    baseline: Baseline | None = None
    judgement: Judgement
    comparison: Comparison | None = None
    """How old and new environment compared in turns, where that decided on the latency."""
    run: Run | None = None
    """This measurement in the form a baseline keeps; None when it may not become one."""
    duration_s: Seconds = 0.0
    """Measuring, comparing and judging; preparing the pipeline comes before."""
    reference_s: Seconds = 0.0
    """Spent on the reference recipe: its pipeline, and its pictures as far as this test was the first to need them."""
    worker: str = ""
    max_slowdown: Figure | None = None
    """The test's tolerance of its latency, a fraction; None where it was not recorded."""
    bounds: dict[str, Figure] = {}
    """Other bounds that the test was given, by the names of their options (``min_ssim``, ...)."""

    @property
    def scores(self) -> PictureScores:
        """What its pictures were compared with."""
        if self.quality is not None and self.quality.reference == BASELINE:
            return PictureScores(stored=self.quality, drift=self.drift)
        return PictureScores(reference=self.quality, drift=self.drift)

    @property
    def ran(self) -> str | None:
        """The recipe, with what a whole one (``fastest``) stood for when it was measured, as far as that is known."""
        return self.recipe and str(self.measurement.facts.get("recipe", self.recipe))


class Skipped(Record, frozen=True, kw_only=True, tag_field="kind", tag="skipped"):
    """A fluxperf test that did not run, and why."""

    test: str
    recipe: str | None
    reason: str
    marked: bool = False
    """It was marked (skip, skipif): left out on purpose, not for want of something."""


class PublishedFigure(Record, frozen=True, kw_only=True):
    """A figure from the literature for a workload of the run: shown beside what was measured, never gated on."""

    configuration: str
    """The source's own name of it."""
    recipe: str | None = None
    """Canonical recipe that does the same, if there is one."""
    gpu: str
    """As baselines are filed: ``h100``."""
    seconds: Seconds
    """Typical seconds of a generation: the median, else the mean."""
    n: int | None = None
    measured: bool = True
    """False for an estimate."""
    note: str = ""
    """What a reader has to know before comparing."""
    workload: str
    """What was generated, in words: ``flux-dev, 1024×1024, 28 steps``."""
    source: str
    """Title and date."""
    url: HttpsUrl


BaselineAction = Literal["recorded", "replaced", "appended", "unchanged", "kept", "refused"]


class BaselineChange(Record, frozen=True, kw_only=True):
    """What a run did to the baseline of one test, or why it did not."""

    test: str
    action: BaselineAction
    text: str
    """Old → new: a clause that begins with the action."""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.test}: {self.text}"


Against = Literal["baselines", "session", "environment"]
"""What results are judged against: stored baselines, a recorded session, or an old environment."""


class RunDocument(Record, frozen=True, kw_only=True):
    """The content of ``results.json``: the only source of every report."""

    format: int
    session: str
    time_utc: str
    plugin: str
    """Version of pytest-fluxperf."""
    gpu: str
    """Name of the baseline folder (``h100``, ``cpu``)."""
    hardware: Hardware
    environment: Environment
    environments: dict[str, Environment] = {}
    """All that results were measured in, by digest, where xdist's workers differed."""
    strict: bool = False
    """Whether inconclusive tests failed."""
    command: tuple[str, ...] = ()
    """As it was typed."""
    against: Against = "baselines"
    collected: Count
    """fluxperf tests selected in the session; ``gated`` of them were judged against a baseline."""
    gated: Count
    results: tuple[Result, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    duration_s: Seconds = 0.0
    update: str | None = None
    """``new``, ``failed``, ``all`` or ``append`` when the run moved baselines."""
    changes: tuple[BaselineChange, ...] = ()
    """What the run did to each baseline."""
    published: tuple[PublishedFigure, ...] = ()

    @property
    def measured_in(self) -> dict[str, Environment]:
        """Every environment that results were measured in, by digest."""
        return {self.environment.digest: self.environment, **self.environments}
