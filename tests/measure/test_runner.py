from __future__ import annotations

import gc
import itertools
from typing import Any

import pytest

from pytest_fluxperf.measure import runner as measuring
from pytest_fluxperf.measure.phases import PhaseTracer
from pytest_fluxperf.measure.runner import MAX_WARMUP, BodyRaised, Hooks, Runner
from pytest_fluxperf.results import Prompt, Workload


class FakeClock:
    """A device that works for as long as it is told; marks are its time so far."""

    def __init__(self) -> None:
        self.now = 0.0
        self.synchronized = 0

    def mark(self) -> float:
        return self.now

    def synchronize(self) -> None:
        self.synchronized += 1

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def work(self, seconds: float) -> None:
        self.now += seconds


class Module:
    """What the tracer needs of a transformer."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}

    def register_forward_pre_hook(self, hook: Any) -> Any:
        return self._add(self.before, hook)

    def register_forward_hook(self, hook: Any) -> Any:
        return self._add(self.after, hook)

    def _add(self, hooks: dict[int, Any], hook: Any) -> Any:
        hooks[id(hook)] = hook

        class Handle:
            def remove(self) -> None:
                hooks.pop(id(hook))

        return Handle()

    def __call__(self) -> None:
        for hook in list(self.before.values()):
            hook(self, ())
        self.forward()
        for hook in list(self.after.values()):
            hook(self, (), None)


class Pipe:
    def __init__(self, clock: FakeClock, steps: int = 3) -> None:
        self.clock = clock
        self.steps = steps
        self.transformer = Module(lambda: clock.work(0.1))
        self.vae = type("Vae", (), {"decode": lambda _, z: (clock.work(0.05), "pixels")[1]})()

    def encode_prompt(self) -> None:
        self.clock.work(0.02)

    def __call__(self) -> str:
        self.encode_prompt()
        for _ in range(self.steps):
            self.transformer()
            self.clock.work(0.01)  # the scheduler
        self.vae.decode("latents")
        self.clock.work(0.03)  # to PIL
        return "picture"


class Subject:
    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    @property
    def decisions(self) -> str:
        return "101"


class Counts:
    gave_up: tuple[str, ...] = ()

    def __init__(self, graphs: int = 0, graph_breaks: int = 0, reasons: tuple[str, ...] = ()) -> None:
        self.graphs, self.graph_breaks, self.recompile_reasons = graphs, graph_breaks, reasons

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.graphs - other.graphs,
            self.graph_breaks - other.graph_breaks,
            self.recompile_reasons[len(other.recompile_reasons) :],
        )


def workload(n: int = 4) -> Workload:
    prompts = tuple(Prompt(text=f"prompt {i}", seed=i) for i in range(n))
    return Workload(model="m", prompts=prompts, height=16, width=16, steps=3, guidance=1.0)


def runner(call, *, clock: FakeClock | None = None, n: int = 4, load=lambda prompt: None, **more: Any) -> Runner:
    return Runner(
        call=call, load=load, workload=workload(n), clock=clock or FakeClock(), device="cpu", **{"warmup": 2, **more}
    )


@pytest.fixture
def pipe() -> Pipe:
    return Pipe(FakeClock())


def test_phases_add_up_to_the_latency(pipe):
    measurement = runner(pipe, clock=pipe.clock, subject=Subject(pipe)).run()
    generation = measurement.generations[0]
    assert generation.latency_s == pytest.approx(0.02 + 3 * 0.11 + 0.05 + 0.03)
    assert generation.text_encode_s == pytest.approx(0.02)
    assert generation.steps_s == pytest.approx((0.11, 0.11, 0.11))
    assert generation.denoise_s == pytest.approx(0.33)
    assert generation.decode_s == pytest.approx(0.05)
    assert generation.decisions == "101"
    assert (generation.computed_steps, generation.cached_steps) == (2, 1)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 0), (0, 2)])
def test_denoising_ends_where_the_last_step_is_decoded(pipe, before, after):
    def body():
        for _ in range(before):
            pipe.vae.decode("a preview")
        for _ in range(3):
            pipe.transformer()
        for _ in range(after):
            pipe.clock.work(0.01)  # the scheduler
            pipe.vae.decode("latents")

    (generation,) = runner(body, clock=pipe.clock, subject=Subject(pipe), n=1).run().generations
    denoised = 3 * 0.1 + (0.01 if after else 0)
    assert generation.denoise_s == pytest.approx(denoised)
    assert sum(generation.steps_s) == pytest.approx(denoised)
    assert generation.decode_s == pytest.approx((before + after) * 0.05)


def test_the_tracer_leaves_the_pipeline_as_it_was(pipe):
    before = dict(vars(pipe)), dict(vars(pipe.vae))
    with PhaseTracer(pipe, pipe.clock):
        assert "encode_prompt" in vars(pipe)
        assert "decode" in vars(pipe.vae)
    assert (dict(vars(pipe)), dict(vars(pipe.vae))) == before
    assert not pipe.transformer.before
    assert not pipe.transformer.after


def test_the_tracer_leaves_even_when_the_body_raises(pipe):
    pipe.transformer.forward = lambda: 1 / 0
    with pytest.raises(BodyRaised):
        runner(pipe, clock=pipe.clock, subject=Subject(pipe)).run()
    assert "encode_prompt" not in vars(pipe)
    assert not pipe.transformer.before


def test_warm_up_then_once_per_prompt_each_loaded_just_before(pipe):
    loaded: list[Prompt] = []
    calls: list[str] = []
    subject = Subject(pipe)

    def call():
        calls.append(loaded[-1].text)
        return pipe()

    measurement = runner(call, clock=pipe.clock, subject=subject, load=loaded.append).run()
    texts = [prompt.text for prompt in workload().prompts]
    assert calls == texts[:2] + texts
    assert len(measurement.warmup_s) == 2
    assert subject.begun == 6
    assert pipe.clock.synchronized == 12  # before and after every generation


def test_warm_up_goes_on_until_nothing_compiles_any_more():
    clock, compiled = FakeClock(), itertools.chain([3, 2, 1], itertools.repeat(0))
    total = 0

    def call():
        nonlocal total
        total += next(compiled)
        clock.work(1)

    class Compiling(Hooks):
        def compilation(self):
            return Counts(total)

    measurement = runner(call, clock=clock, hooks=Compiling()).run()
    assert len(measurement.warmup_s) == 4
    assert measurement.recompiles == 0


def test_warm_up_is_bounded_and_what_compiles_afterwards_is_counted():
    total = 0

    def call():
        nonlocal total
        total += 1

    class Compiling(Hooks):
        def compilation(self):
            return Counts(total, graph_breaks=total, reasons=tuple(f"size {i}" for i in range(total)))

    measurement = runner(call, hooks=Compiling()).run()
    assert len(measurement.warmup_s) == MAX_WARMUP
    assert measurement.recompiles == 4
    assert measurement.recompile_reasons == ("size 8", "size 9", "size 10", "size 11")
    assert measurement.graph_breaks == MAX_WARMUP + 4


@pytest.mark.parametrize(
    ("warmup", "compiles", "watched"),
    [(3, True, [1]), (2, False, [1]), (1, False, [0]), (1, True, []), (0, False, [])],
)
def test_what_runs_is_looked_at_once_and_never_while_it_compiles(warmup, compiles, watched):
    made, seen = [], []

    class Watching(Hooks):
        def observing(self):
            seen.append(len(made))
            return super().observing()

    runner(lambda: made.append(None), hooks=Watching(), warmup=warmup, compiles=compiles).run()
    assert seen == watched


def test_no_warm_up_when_asked_for_none():
    assert runner(lambda: None, warmup=0).run().warmup_s == ()


def test_a_body_that_raises_says_where():
    calls = itertools.count()

    def call():
        if next(calls) == 4:
            raise ValueError("no more")

    with pytest.raises(BodyRaised, match="at generation 3 of 4") as info:
        runner(call).run()
    assert isinstance(info.value.__cause__, ValueError)


def test_the_reference_alternates_within_pairs():
    order: list[str] = []

    class Paired(Hooks):
        def keep(self, index, output, decoded):
            order.append(f"keep {index}")
            return None, ()

    hooks = Paired()
    hooks.reference = lambda prompt: (order.append("reference"), 2.0)[1]
    measurement = runner(lambda: order.append("body"), hooks=hooks, warmup=0, n=3).run()
    assert order == [
        *("reference", "body", "keep 0"),
        *("body", "reference", "keep 1"),
        *("reference", "body", "keep 2"),
    ]
    assert [g.reference_latency_s for g in measurement.generations] == [2.0] * 3


def test_no_garbage_collection_in_timed_regions():
    seen = []
    assert gc.isenabled()
    runner(lambda: seen.append(gc.isenabled())).run()
    assert not any(seen)
    assert gc.isenabled()


def test_progress_is_told_with_the_running_median():
    clock, told = FakeClock(), []
    lengths = itertools.cycle([1, 1, 5, 1, 2, 9])

    class Telling(Hooks):
        def progress(self, stage, done, total, p50_s):
            told.append((stage, done, total, p50_s))

    runner(lambda: clock.work(next(lengths)), clock=clock, hooks=Telling()).run()
    assert told[:2] == [("warm-up", 1, 2, None), ("warm-up", 2, 2, None)]
    assert told[2:] == [
        ("generation", 1, 4, 5),
        ("generation", 2, 4, 3),
        ("generation", 3, 4, 2),
        ("generation", 4, 4, 3.5),
    ]


def test_problems_of_pictures_are_recorded():
    class Keeping(Hooks):
        def keep(self, index, output, decoded):
            return None, (f"picture {index} is black",) if index == 2 else ()

    assert runner(lambda: None, hooks=Keeping()).run().problems == ("picture 2 is black",)


def test_timed_measures_by_both_clocks():
    clock = FakeClock()
    seconds, wall, output = measuring.time_call(lambda: clock.work(7) or "made", clock)
    assert (seconds, output) == (7, "made")
    assert 0 < wall < 7
