"""Two ledgers of one recipe: what changed is told exactly, what did not repeat before proves nothing."""

from __future__ import annotations

import msgspec
import pytest

from pytest_fluxperf.gate import evidence
from pytest_fluxperf.results import FamilyWork, Ledger, PhaseWork, Work

NORM = "native::vectorized_layer_norm_kernel bf16 fp32"
FUSED = "triton_red_fused_native_layer_norm"
ATTENTION = "flash_fwd_kernel bf16"


def phase(name, times=1, calls=100, operators=50, kernels=10, device_s=0.01):
    """The counts are of one step; a phase has as many as it came ``times``."""
    each = Work(calls=calls, operators=operators, kernels=kernels, device_s=device_s)
    total = Work(
        calls=times * calls,
        operators=times * operators,
        kernels=None if kernels is None else times * kernels,
        device_s=None if device_s is None else times * device_s,
    )
    return PhaseWork(phase=name, times=times, total=total, each=each if name in ("computed", "cached") else None)


def ledger(*phases, families=(), device="cuda", clock=None):
    return Ledger(device=device, phases=phases, families=families, sm_clock_mhz=clock)


def family(name, computed, seconds=0.0):
    return FamilyWork(family=name, counts={"computed": computed}, device_s={"computed": seconds})


BEFORE = ledger(
    phase("text"),
    phase("computed", 8, calls=1000, operators=500, kernels=200, device_s=0.1),
    phase("decoding"),
    families=(family(ATTENTION, 456, 0.310), family(FUSED, 456, 0.020), family("(others)", 688, 0.47)),
)


def altered(**computed):
    values = {"times": 8, "calls": 1000, "operators": 500, "kernels": 200, "device_s": 0.1} | computed
    return msgspec.structs.replace(BEFORE, phases=(BEFORE.phases[0], phase("computed", **values), BEFORE.phases[2]))


def test_equal_counts_are_the_same_work_whatever_the_device_took_within_its_noise():
    found = evidence.compare(altered(device_s=0.1005), [BEFORE])
    assert (found.work, found.changes, found.reasons) == ("same", (), ())
    assert found.device.verdict == "same"
    assert found.device.change == pytest.approx(0.004 / 0.82)
    assert found.growth == {"kernels": 0, "operators": 0, "calls": 0}


def test_more_kernels_in_each_step_are_told_with_what_stands_where():
    now = msgspec.structs.replace(
        altered(kernels=1264),
        families=(family(ATTENTION, 456, 0.310), family(NORM, 8968, 0.05), family("(others)", 688, 0.47)),
    )
    found = evidence.compare(now, [BEFORE])
    assert found.work == "more"
    (change,) = found.changes
    assert (change.what, change.phase, change.each, change.difference) == ("kernels", "computed", True, 1064)
    assert found.reasons == (
        "1,064 more kernels in each computed step: torch's own layer norm where inductor's fused layer norm was",
    )
    assert [(f.family, f.before, f.now) for f in found.families] == [(NORM, 0, 8968), (FUSED, 456, 0)]


def test_a_family_that_is_named_on_one_side_alone_may_be_among_the_rest_of_the_other():
    small = family("triton_poi_x", 8)  # half a percent of 1,600
    now = msgspec.structs.replace(BEFORE, families=(*BEFORE.families[:2], small, family("(others)", 680, 0.47)))
    assert evidence.compare(now, [BEFORE]).work == evidence.compare(BEFORE, [now]).work == "same"
    large = family("triton_poi_x", 12)
    now = msgspec.structs.replace(BEFORE, families=(*BEFORE.families[:2], large, family("(others)", 676, 0.47)))
    assert evidence.compare(now, [BEFORE]).work == evidence.compare(BEFORE, [now]).work == "otherwise"


def test_python_calls_are_told_by_phase_and_share():
    found = evidence.compare(altered(calls=1510), [BEFORE])
    assert found.work == "more"
    assert found.reasons == ("510 more Python calls in each computed step (+51 %, 1,000 → 1,510)",)
    assert found.growth["calls"] == pytest.approx(8 * 510 / 8200)


def test_a_single_call_is_seen():
    now = msgspec.structs.replace(BEFORE, phases=(phase("text", calls=101), *BEFORE.phases[1:]))
    (change,) = evidence.compare(now, [BEFORE]).changes
    assert (change.what, change.phase, change.each, change.before, change.now) == ("calls", "text", False, 100, 101)


def test_a_change_in_one_step_alone_is_of_the_whole_phase():
    work = BEFORE.phases[1]
    total = msgspec.structs.replace(work.total, calls=work.total.calls + 7)
    now = msgspec.structs.replace(
        BEFORE, phases=(BEFORE.phases[0], msgspec.structs.replace(work, total=total), BEFORE.phases[2])
    )
    (change,) = evidence.compare(now, [BEFORE]).changes
    assert (change.each, change.before, change.now) == (False, 8000, 8007)
    assert evidence.compare(now, [BEFORE]).reasons[0].startswith("7 more Python calls in the computed steps")


def test_fewer_calls_are_a_stale_baseline_and_a_mixture_is_more_work():
    assert evidence.compare(altered(calls=900), [BEFORE]).work == "less"
    found = evidence.compare(altered(calls=900, kernels=201), [BEFORE])
    assert found.work == "more"
    assert [reason.split()[1] for reason in found.reasons] == ["more", "fewer"]


def test_more_computed_steps_are_told_once_and_not_as_more_work_in_each():
    before = ledger(phase("computed", 8), phase("cached", 20, kernels=2))
    now = ledger(phase("computed", 28))
    found = evidence.compare(now, [before])
    assert found.work == "more"
    assert [(c.what, c.phase, c.before, c.now) for c in found.changes] == [
        ("steps", "computed", 8, 28),
        ("steps", "cached", 20, 0),
    ]
    assert found.reasons == ("computed steps 8 → 28", "cached steps 20 → 0")


def test_other_kernels_for_as_many_calls_are_a_choice_and_no_more_work():
    now = msgspec.structs.replace(
        BEFORE,
        families=(family("cudnn_sdpa_sm90_flash_fprop", 456, 0.3), *BEFORE.families[1:2], family("(others)", 400)),
    )
    before = msgspec.structs.replace(BEFORE, families=(*BEFORE.families[:2], family("(others)", 400)))
    found = evidence.compare(now, [before])
    assert found.work == "otherwise"
    assert found.reasons == (
        "as many kernels, but others: cuDNN's attention kernel where FlashAttention's attention kernel was",
    )


def test_slower_kernels_are_told_by_their_operation():
    now = msgspec.structs.replace(
        altered(device_s=0.1051), families=(family(ATTENTION, 456, 0.351), *BEFORE.families[1:])
    )
    found = evidence.compare(now, [BEFORE])
    assert (found.work, found.device.verdict) == ("same", "more")
    assert found.reasons == ("attention kernels +41 ms",)


def test_device_time_is_judged_by_the_spread_of_the_stored_runs():
    stored = [altered(device_s=seconds) for seconds in (0.100, 0.104, 0.096)]
    assert evidence.compare(altered(device_s=0.108), stored).device.verdict == "same"
    assert evidence.compare(altered(device_s=0.108), stored[:1]).device.verdict == "more"
    assert evidence.compare(altered(device_s=0.092), stored[:1]).device.verdict == "less"


def test_a_slower_clock_is_told_where_the_cycles_are_the_same():
    before = msgspec.structs.replace(BEFORE, sm_clock_mhz=1980)
    now = msgspec.structs.replace(altered(device_s=0.1 * 1980 / 1800), sm_clock_mhz=1800)
    assert "as many cycles as before at another clock, 1980 → 1800 MHz" in evidence.compare(now, [before]).reasons
    same_clock = msgspec.structs.replace(now, sm_clock_mhz=1980)
    assert not [r for r in evidence.compare(same_clock, [before]).reasons if "clock" in r]


def test_what_did_not_repeat_in_the_baseline_proves_nothing():
    stored = [altered(calls=1000), altered(calls=1020)]
    assert evidence.compare(altered(calls=1010), stored).work == "same"
    assert evidence.compare(altered(calls=1021), stored).work == "more"
    assert evidence.compare(altered(calls=999), stored).work == "less"


def test_ledgers_of_another_kind_of_device_are_not_compared():
    cpu = ledger(phase("text", kernels=None, device_s=None), device="cpu")
    assert evidence.compare(cpu, [BEFORE]) is None
    assert evidence.compare(BEFORE, []) is None
    found = evidence.compare(cpu, [BEFORE, cpu])
    assert (found.work, found.device) == ("same", None)
