"""The order of turns, blocks and verdicts, with children that speak the protocol and measure nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest
from fakechildren import Fakes, alive

from pytest_fluxperf.ab.outcome import comparison_of
from pytest_fluxperf.ab.protocol import Prepared
from pytest_fluxperf.ab.stage import fits
from pytest_fluxperf.errors import FluxPerfError

SAME = ({"latency": 1.0}, {"latency": 1.0})


def slower(change: float) -> tuple[dict, dict]:
    return {"latency": 1.0}, {"latency": 1 + change}


def verdict(trial) -> str:
    if trial.trouble:
        return trial.trouble.verdict
    if trial.skipped:
        return "skipped"
    return trial.interleaved.finding.verdict if trial.interleaved else "none"


def test_a_change_is_found_and_no_change_is_not(fakes: Fakes) -> None:
    fakes.tests(same=SAME, slow=slower(0.05), fast=slower(-0.06))
    trials = fakes.run()
    assert {t.test: verdict(t) for t in trials} == {"same": "passed", "slow": "regressed", "fast": "improved"}
    slow = next(t for t in trials if t.test == "slow")
    assert slow.interleaved is not None
    assert slow.interleaved.finding.change == pytest.approx(0.05, abs=0.003)
    assert "block 1: slow: regressed" in "\n".join(fakes.shown)


def test_the_turn_passes_between_generations_and_never_two_work(fakes: Fakes) -> None:
    fakes.tests(same=SAME)
    fakes.run()
    made = [line.split("-")[0] for line in fakes.lines("made")]
    assert made == ["old", "new", "new", "old"] * 4
    warm = [i for i, line in enumerate(fakes.lines()) if "warm" in line]
    first_made = next(i for i, line in enumerate(fakes.lines()) if "made" in line)
    assert all(i < first_made for i in warm), "both sides warm up before turns start"


@pytest.mark.parametrize("drift", [-0.10, 0.10])
def test_a_drift_of_ten_percent_over_the_run_changes_no_verdict(fakes: Fakes, drift: float) -> None:
    for side in fakes.scenarios.values():
        side |= {"drift": drift, "total": 32}
    fakes.tests(same=SAME, slow=slower(0.05))
    assert [verdict(t) for t in fakes.run()] == ["passed", "regressed"]


@pytest.mark.parametrize("drift", [-0.10, 0.10])
def test_a_drift_over_alternating_processes_changes_no_verdict(fakes: Fakes, drift: float) -> None:
    for side in fakes.scenarios.values():
        side |= {"drift": drift, "total": 64}
    fakes.tests(same=SAME, slow=slower(0.05))
    trials = fakes.run(mode="alternating")
    assert [verdict(t) for t in trials] == ["passed", "regressed"]
    assert all(t.alternating and len(t.blocks[0].old_s) == 16 for t in trials)
    processes = [line.split(" ")[0] for line in fakes.lines("same warm")][:4]
    assert processes == ["old-1a-alone", "new-1a-alone", "new-1b-alone", "old-1b-alone"]


def test_what_stays_open_is_measured_again_by_fresh_processes_the_worst_first(fakes: Fakes) -> None:
    noisy = {"noise": 0.012}
    fakes.tests(
        clear=SAME,
        open_=({"latency": 1.0, **noisy}, {"latency": 1.006, **noisy}),
        worse=({"latency": 1.0, **noisy}, {"latency": 1.019, **noisy}),
    )
    trials = {t.test: t for t in fakes.run()}
    assert len(trials["clear"].blocks) == 1
    assert len(trials["worse"].blocks) > 1
    plans = [line.partition(" plan ")[2] for line in fakes.lines("old-2 plan")]
    assert plans[0].startswith("worse")
    assert all(len(t.blocks) <= 3 and not t.open for t in trials.values())


def test_three_confirmed_regressions_are_enough_unless_told_to_go_on(fakes: Fakes) -> None:
    fakes.tests(**{f"slow{i}": slower(0.1) for i in range(3)}, later=SAME)
    conductor = fakes.conductor()
    trials = conductor.run()
    assert [verdict(t) for t in trials] == ["regressed"] * 3 + ["none"]
    assert conductor.ended == "3 regressions are confirmed"
    assert [verdict(t) for t in fakes.run(go_on=True)] == ["regressed"] * 3 + ["passed"]


def test_suspects_are_compared_in_the_order_given(fakes: Fakes) -> None:
    fakes.tests(a=SAME, b=slower(0.1), c=SAME)
    assert [t.test for t in fakes.run(["c", "b"])] == ["c", "b"]
    assert fakes.lines("old-1 plan") == ["old-1 plan c,b"]


@pytest.mark.parametrize("mode", ["interleaved", "alternating"])
def test_what_the_old_environment_lacks_is_no_baseline(fakes: Fakes, mode: Any) -> None:
    fakes.scenarios["old"]["refused"] = {"grown": "unknown token 'newcache'"}
    fakes.tests(
        grown=(None, {"latency": 1.0}),
        missing=({"skipped": "torchao is not installed"}, {"latency": 1.0}),
        both=({"skipped": "no CUDA"}, {"skipped": "no CUDA"}),
        same=SAME,
    )
    trials = {t.test: t for t in fakes.run(mode=mode)}
    assert {name: verdict(t) for name, t in trials.items()} == {
        "grown": "no baseline", "missing": "no baseline", "both": "skipped", "same": "passed",
    }  # fmt: skip
    assert "unknown token 'newcache'" in trials["grown"].trouble.message
    assert "torchao is not installed" in trials["missing"].trouble.message
    assert len(trials["missing"].new) == 1, "the new environment is measured all the same"


def test_what_the_new_environment_has_lost_is_broken(fakes: Fakes) -> None:
    fakes.tests(
        lost=({"latency": 1.0}, {"skipped": "torchao does not import"}),
        black=({"latency": 1.0}, {"latency": 1.0, "problem": "picture of prompt 1 of 8 is black"}),
        never=({"latency": 1.0, "problem": "picture of prompt 1 of 8 is black"}, {"latency": 1.0}),
        same=SAME,
    )
    trials = {t.test: t for t in fakes.run()}
    assert [verdict(t) for t in trials.values()] == ["broken", "broken", "no baseline", "passed"]
    assert "torchao does not import" in trials["lost"].trouble.message
    assert "is black" in trials["black"].trouble.message


@pytest.mark.parametrize(
    ("side", "does", "at", "expected", "said"),
    [
        ("new", "die", 3, "broken", "killed by SIGKILL"),
        ("old", "die", "warm", "invalid", "killed by SIGKILL"),
        ("new", "exit", 0, "broken", "ended with exit status 3: out of luck"),
        ("new", "hang", 2, "broken", "did not answer for 2 s"),
        ("old", "hang", "warm", "invalid", "did not answer for 2 s"),
        ("new", "garbage", 1, "broken", "sent what is no message of this protocol: b'Loading weights: 100%'"),
    ],
)
def test_a_child_that_fails_ends_the_run_with_a_verdict(
    fakes: Fakes, side: str, does: str, at: object, expected: str, said: str
) -> None:
    bad = {"latency": 1.0, "does": does, "at": at}
    fakes.tests(fine=SAME, bad=({"latency": 1.0}, bad) if side == "new" else (bad, {"latency": 1.0}), later=SAME)
    conductor = fakes.conductor(timeout_s=2.0)
    start = time.monotonic()
    trials = conductor.run()
    assert time.monotonic() - start < 30
    assert [verdict(t) for t in trials] == ["passed", expected, "none"]
    assert said in trials[1].trouble.message
    assert side in trials[1].trouble.message
    assert conductor.ended
    if does == "hang":
        pids = [int(pid) for pid in (fakes.folder / f"{side}-1.pids").read_text().split()]
        assert not any(alive(pid) for pid in pids), "what the child had started ends with it"


@pytest.mark.parametrize("side", ["old", "new"])
def test_another_protocol_is_refused_before_anything_is_measured(fakes: Fakes, side: str) -> None:
    fakes.tests(same=SAME)
    fakes.scenarios[side] |= {"protocol": 2, "plugin": "9.9"}
    with pytest.raises(
        FluxPerfError, match=rf"the {side} environment .* speaks A/B protocol 2 \(pytest-fluxperf 9.9\)"
    ):
        fakes.run()
    assert not fakes.lines("plan")


def test_another_plugin_version_of_the_same_protocol_is_welcome(fakes: Fakes) -> None:
    fakes.tests(same=SAME)
    fakes.scenarios["old"]["plugin"] = "0.0.9"
    assert [verdict(t) for t in fakes.run()] == ["passed"]


@pytest.mark.parametrize("does", ["die", "exit", "garbage", "hang"])
def test_a_child_that_fails_before_any_test_is_an_error(fakes: Fakes, does: str) -> None:
    fakes.tests(same=SAME)
    fakes.scenarios["new"] |= {"does": does, "at": "hello"}
    with pytest.raises(FluxPerfError, match="the new environment"):
        fakes.run(timeout_s=2.0)


def test_what_the_new_environment_lost_is_broken_and_the_rest_is_compared(fakes: Fakes) -> None:
    fakes.tests(same=SAME, lost=SAME)
    del fakes.scenarios["new"]["tests"]["lost"]
    trials = {t.test: t for t in fakes.run()}
    assert {test: verdict(t) for test, t in trials.items()} == {"same": "passed", "lost": "broken"}
    assert trials["lost"].trouble.message == "the old environment has it, the new one does not: it has no such test"
    del fakes.scenarios["new"]["tests"]["same"]
    assert {t.test: verdict(t) for t in fakes.run()} == {"same": "broken", "lost": "broken"}


def test_two_copies_that_do_not_fit_alternate(fakes: Fakes) -> None:
    big = {"latency": 1.0, "held": 40_000.0, "free": 38_000.0}
    fakes.tests(small=SAME, big=(big, dict(big, latency=1.1)))
    trials = {t.test: t for t in fakes.run()}
    assert (trials["small"].alternating, verdict(trials["small"])) == (False, "passed")
    assert (trials["big"].alternating, verdict(trials["big"])) == (True, "regressed")
    assert not fakes.lines("new-1 big warm"), "checked before the second copy is loaded"
    assert "alternating processes" in trials["big"].interleaved.finding.message
    assert trials["big"].reason == (
        "two copies do not fit in memory: the old environment's holds 40000 MiB, and 38100 MiB are "
        "there for the new one's"
    )


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("at", ["warm", 3])
def test_memory_that_turns_out_not_to_suffice_for_two_makes_processes_alternate(
    fakes: Fakes, side: str, at: str | int
) -> None:
    """The second copy needs more than the first one held, which nobody knows beforehand."""
    short = {"latency": 1.0, "short": at}
    fakes.tests(before=SAME, big=(short, SAME[1]) if side == "old" else (SAME[0], short), after=SAME)
    trials = {t.test: t for t in fakes.run()}
    assert {test: verdict(t) for test, t in trials.items()} == dict.fromkeys(("before", "big", "after"), "passed")
    assert [t.alternating for t in trials.values()] == [False, True, False]
    assert [len(block.new_s) for block in trials["big"].blocks] == [16]
    assert "the device's memory does not suffice in warm-up" in trials["big"].reason
    result = comparison_of(trials["big"])
    assert result is not None
    assert result.reason == trials["big"].reason


def test_what_neither_runs_whole_in_processes_of_its_own_is_broken(fakes: Fakes) -> None:
    short = {"latency": 1.0, "problem": "the device's memory does not suffice in warm-up: it needed 2.50 GiB more"}
    fakes.tests(big=(short, short))
    (trial,) = fakes.run(mode="alternating")
    assert verdict(trial) == "broken"
    assert trial.trouble.message.startswith("neither environment can run it: the device's memory does not suffice")


def test_interleaving_that_was_asked_for_is_not_given_up(fakes: Fakes) -> None:
    fakes.tests(big=(SAME[0], {"latency": 1.0, "short": "warm"}))
    (trial,) = fakes.run(mode="interleaved")
    assert verdict(trial) == "broken"
    assert "memory does not suffice" in trial.trouble.message


def test_fits_counts_what_the_second_process_holds_already() -> None:
    first = Prepared(test="t", workload="w", generations=8, held_mib=30_000, free_mib=20_000)
    assert not fits(first, 0)
    assert fits(first, 13_000)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_comparison_that_is_ended_leaves_nothing_that_a_body_started(fakes: Fakes, number: signal.Signals) -> None:
    fakes.tests(same=({**SAME[0], "does": "hang", "at": 2}, SAME[1]))
    pid = os.fork()
    if pid == 0:
        try:
            fakes.conductor(timeout_s=600.0).run()
        finally:
            os._exit(1)
    told = fakes.folder / "old-1.pids"
    while not (told.exists() and len(told.read_text().split()) == 2):
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    os.kill(pid, number)
    os.waitpid(pid, 0)
    child, helper = map(int, told.read_text().split())
    while alive(child) or alive(helper):  # a test that hangs here has failed
        time.sleep(0.02)


def test_the_conductor_that_is_killed_leaves_no_child(fakes: Fakes) -> None:
    """A child that loses its conductor ends by itself."""
    fakes.tests(same=SAME)
    pid = os.fork()
    if pid == 0:  # the conductor: dies in the middle, without a farewell
        try:
            conductor = fakes.conductor()
            conductor._show = lambda _: os._exit(9)
            conductor.run()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
