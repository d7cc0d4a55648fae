from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import records as make
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pytest_fluxperf.baseline.codec import check, decode, encode, rounded
from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.baseline.store import BaselineStore, _read_picture, baseline_path
from pytest_fluxperf.baseline.update import Change, accepted
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import (
    Baseline,
    Finding,
    Generation,
    Judgement,
    Measurement,
    Picture,
    PictureScores,
    Quality,
    Result,
    Run,
    Sample,
    Similarity,
    Verdict,
)
from tools.schema import SCHEMAS, schema_text

TEST = "perf/test_flux.py::test_recipe[a]"
ROOT = Path(__file__).parents[2]


# Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodeid", "path"),
    [
        ("perf/test_flux.py::test_plain", "perf/test_flux/test_plain.json"),
        ("test_flux.py::test_plain", "test_flux/test_plain.json"),
    ],
)
def test_plain_names_stay_plain(nodeid: str, path: str) -> None:
    assert str(baseline_path(nodeid)) == path


def test_parametrized_names_are_readable() -> None:
    path = baseline_path("perf_tests/test_published.py::test_recipe[bf16+fbcache:0.3]")
    assert path.parent.as_posix() == "perf_tests/test_published"
    assert path.name.startswith("test_recipe_bf16+fbcache_0.3")
    assert path.suffix == ".json"


NEIGHBOURS = [
    "T.py::t", "t.py::t", "t.py::T", "a.py::t[A]", "a.py::t[a]", "A.py::t[a]", "a.py::t[a/b]",
    "a.py::t[a:b]", "a.py::t[a b]", "a.py::t[a_b]",
    "a.py::_t", "a.py::t_", "a.py::t", "_a.py::t", "a.py::" + "t" * 80, "a.py::" + "t" * 81,
    "a.py::" + "t" * 82, "a" * 81 + ".py::t", "a" * 82 + ".py::t",
    "a.py::t_a_b", "a/b.py::t", "a_b.py::t", "a.txt::t", "a::t", "../a.py::t", "/etc/a.py::t", "a.py::T::t",
    "a.py::t[😀]", "a.py::t[" + "x" * 10_000 + "]", "a.py::t[" + "x" * 10_001 + "]", "a.py::..", "::", "a.py::",
]  # fmt: skip

nodeids = st.text(min_size=1, max_size=60) | st.sampled_from(NEIGHBOURS)


@given(nodeids, nodeids)
@settings(max_examples=300)
def test_names_are_safe_and_never_collide(one: str, other: str) -> None:
    path = baseline_path(one)
    for part in path.parts:
        assert len(part) <= 100
        assert part.isascii()
        assert not part.startswith(".")
        assert part not in ("", "..")
        assert not set(part) & set('<>:"/\\|?*[] \n\0')
    assert not path.is_absolute()
    if one != other:
        assert str(path).lower() != str(baseline_path(other)).lower()


def test_neighbouring_names_never_collide() -> None:
    distinct = set(NEIGHBOURS)
    assert len({str(baseline_path(nodeid)).lower() for nodeid in distinct}) == len(distinct)


# Text ---------------------------------------------------------------------------------------------------

seconds = st.floats(1e-4, 1e4)
unit = st.floats(0, 1)
samples = st.builds(
    Sample,
    latency_s=seconds,
    wall_s=seconds,
    reference_latency_s=st.none() | seconds,
    text_encode_s=st.none() | st.floats(0, 1e3),
    decisions=st.none() | st.text("01", max_size=28),
    score=st.builds(Similarity, psnr_db=st.none() | st.floats(0, 100), ssim=st.none() | unit, lpips=st.none() | unit),
    picture=st.none() | st.binary(max_size=4).map(lambda b: hashlib.sha256(b).hexdigest()),
)
facts = st.dictionaries(
    st.text(max_size=8),
    st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | unit | st.text(max_size=9), st.lists, max_leaves=4),
    max_size=3,
)


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    n = draw(st.integers(1, 4))
    runs = draw(
        st.lists(
            st.builds(
                make.run,
                st.just(make.measurement(make.latencies(n))),
                samples=st.lists(samples, min_size=n, max_size=n).map(tuple),
                peak_memory_mib=st.none() | st.floats(1, 1e6),
                facts=facts,
            ),
            min_size=1,
            max_size=3,
        )
    )
    return make.baseline(*map(rounded, runs), recipe=draw(st.none() | st.text(max_size=9)))


@given(baselines())
@settings(max_examples=150, deadline=None)
def test_round_trip_is_the_identity_and_byte_stable(baseline: Baseline) -> None:
    text = encode(baseline)
    again = decode(text, "x.json")
    assert again == baseline
    assert encode(again) == text
    assert text.endswith(b"}\n")


def test_one_sample_a_line_and_sorted_keys() -> None:
    lines = encode(make.baseline()).decode().splitlines()
    assert sum('"latency_s"' in line for line in lines) == 3 * make.N
    keys = [line.split('"')[1] for line in lines if line.startswith('  "')]
    assert keys == sorted(keys)


def test_six_significant_digits() -> None:
    run = rounded(make.run(make.measurement([1.23456789] * 8)))
    assert run.samples[0].latency_s == 1.23457
    assert rounded(run) == run


def spoiled(text: bytes, change: Any) -> bytes:
    data = json.loads(text)
    change(data)
    return json.dumps(data).encode()


def put(*path: Any, value: Any) -> Any:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (put("format", value=2), r"\$.format: 2 was written by a newer pytest-fluxperf"),
        (put("format", value=0), r"\$.format: 0 is unknown"),
        (put("format", value="1"), r"\$.format: Expected `int`"),
        (put("runs", 0, "samples", 2, "latency_s", value=0.0), r"\$.runs\[0\].samples\[2\].latency_s: must be a"),
        (put("runs", 0, "samples", 2, "latency_s", value=-1.0), r"latency_s: Expected `float` >= 0"),
        (put("runs", 0, "samples", 2, "latency_s", value=None), r"\$.runs\[0\].samples\[2\].latency_s: Expected"),
        (put("runs", 0, "samples", 2, "latency_s", value="2"), r"\$.runs\[0\].samples\[2\].latency_s: Expected"),
        (put("runs", 0, "samples", 2, "reference_latency_s", value=0), "reference_latency_s: must be a positive"),
        (put("runs", 0, "samples", 2, "decode_s", value=-1), r"decode_s: Expected `float` >= 0"),
        (put("runs", 0, "samples", 2, "decisions", value="012"), r"decisions: Expected `str` matching regex"),
        (put("runs", 0, "samples", 2, "score", "ssim", value=7), r"score.ssim: must lie between"),
        (put("runs", 0, "samples", 2, "picture", value="../../x"), r"picture: Expected `str` matching regex"),
        (put("runs", 0, "samples", value=[]), r"\$.runs\[0\].samples: holds 0 for 8 prompts"),
        (put("runs", 0, "peak_memory_mib", value=0), "peak_memory_mib: must be positive"),
        (put("runs", 0, "environment", value="0" * 12), "is not among"),
        (put("environments", make.ENVIRONMENT.digest, "python", value="3.12"), "it was edited"),
        (put("runs", 0, "samples", 2, "latency_s", value=9.0), r"\$.sha256: the content's digest is .*: it was edited"),
        (put("runs", 1, "samples", 0, "decisions", value="1"), r"\$.sha256: .* it was edited"),
        (put("hardware", "memory_mib", value=1), r"\$.sha256: .* it was edited"),
        (lambda data: data["runs"].pop(), r"\$.sha256: .* it was edited"),
        (put("sha256", value="0" * 64), r"\$.sha256: .* it was edited"),
        (lambda data: data.pop("sha256"), "missing required field `sha256`"),
        (put("runs", value=[]), r"\$.runs: must not be empty"),
        (put("tau0", value=0), r"\$.tau0: must be above 0 and at most 1"),
        (put("nu0", value=2**64), r"\$.nu0: must be above 0 and at most 1e\+06"),
        (put("nu0", value=-1), r"\$.nu0: must be above 0"),
        (put("workload", "prompts", value=[]), "must not be empty"),
        (put("workload", "steps", value=-4), r"\$.workload.steps: must be at least 1"),
        (put("workload", "stepz", value=4), "unknown field `stepz`"),
        (lambda data: data.pop("workload"), "missing required field `workload`"),
    ],
)  # fmt: skip
def test_a_file_that_was_spoiled_names_place_and_remedy(tmp_path: Path, change: Any, place: str) -> None:
    store = BaselineStore(tmp_path, "h100")
    path = store.path(TEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(spoiled(encode(make.baseline()), change))
    with pytest.raises(FluxPerfError, match=place) as caught:
        store.load(TEST)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "--fluxperf-update" in message or "upgrade the plugin" in message


def test_layout_is_no_edit() -> None:
    assert decode(spoiled(encode(make.baseline()), lambda data: None), "x.json") == make.baseline()


def test_whole_numbers_are_read_as_they_are_written() -> None:
    baseline = make.baseline(tau0=1, nu0=4)
    assert encode(decode(encode(baseline), "x.json")) == encode(baseline)


@pytest.mark.parametrize("keep", [0, 1, 50, 500, -2])
def test_a_truncated_file_is_refused(keep: int) -> None:
    with pytest.raises(FluxPerfError, match=r"x\.json: .*restore the file"):
        decode(encode(make.baseline())[:keep], "x.json")


@pytest.mark.parametrize("text", [b"\xff\xfe", b"<<<<<<< ours\n{}", b"[]", b"null", b"NaN"])
def test_what_is_no_baseline_is_refused(text: bytes) -> None:
    with pytest.raises(FluxPerfError, match="restore the file"):
        decode(text, "x.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_an_absurd_latency_is_never_written(value: float) -> None:
    sample = msgspec.structs.replace(make.run().samples[0], latency_s=value)
    with pytest.raises(FluxPerfError, match=r"samples\[0\].latency_s"):
        encode(make.baseline(make.run(samples=(sample,) * 8)))


def test_a_fact_that_is_no_json_is_refused() -> None:
    with pytest.raises(FluxPerfError, match="cannot hold"):
        encode(make.baseline(make.run(facts={"share": math.nan})))


def test_a_valid_baseline_has_no_problem() -> None:
    check(make.baseline(), "x")


# Updates ------------------------------------------------------------------------------------------------


def picture(folder: Path, shade: int) -> Picture:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(folder / f"{shade}.png")
    digest = hashlib.sha256((folder / f"{shade}.png").read_bytes()).hexdigest()
    return Picture(path=f"{shade}.png", sha256=digest, width=8, height=8)


def result(
    verdict: Verdict = "passed",
    *,
    seed: int = 0,
    session: str = "now",
    test: str = TEST,
    references: tuple[Picture, ...] = (),
    **changes: Any,
) -> Result:
    measured = make.measurement(make.latencies(seed=seed))
    scores = msgspec.structs.replace(make.quality(), references=references)
    values: dict[str, Any] = {
        "test": test,
        "recipe": make.RECIPE,
        "reference": make.REFERENCE,
        "workload": make.workload(),
        "measurement": measured,
        "quality": scores,
        "judgement": Judgement(verdict=verdict, message="because"),
        "run": record(
            measured,
            PictureScores(reference=scores),
            session=session,
            environment=make.ENVIRONMENT,
            time_utc="2026-01-02T03:04:05Z",
        ),
    }
    return Result(**{**values, **changes})


def update(
    store: BaselineStore, mode: Any, *results: Result, folder: Path | None = None, **changes: Any
) -> list[Change]:
    known = changes.pop("environment", make.ENVIRONMENT)
    values: dict[str, Any] = {"hardware": make.H100, "environments": {known.digest: known}, "tau0": 0.007, "nu0": 4.0}
    return store.update(results, mode, pictures=folder or store.folder, **{**values, **changes})


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", "h100")


def test_a_first_update_records(store: BaselineStore) -> None:
    assert store.load(TEST) is None
    (change,) = update(store, "new", result("no baseline"))
    assert change.action == "recorded"
    assert change.text.startswith("recorded, p50 2")
    stored = store.load(TEST)
    assert stored is not None
    assert stored.test == TEST
    assert (stored.tau0, stored.nu0) == (0.007, 4.0)
    assert not [p for p in store.path(TEST).parent.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("mode", "verdict", "action"),
    [
        ("new", "regressed", "kept"),
        ("new", "passed", "kept"),
        ("failed", "passed", "kept"),
        ("failed", "improved", "kept"),
        ("failed", "inconclusive", "kept"),
        ("failed", "regressed", "replaced"),
        ("all", "passed", "replaced"),
        ("all", "regressed", "replaced"),
        ("append", "passed", "appended"),
        ("append", "inconclusive", "appended"),
        ("all", "broken", "refused"),
        ("all", "invalid", "refused"),
        ("append", "broken", "refused"),
        ("append", "regressed", "refused"),
        ("append", "improved", "refused"),
    ],
)
def test_what_each_mode_does(store: BaselineStore, mode: str, verdict: Verdict, action: str) -> None:
    update(store, "new", result())
    before = store.path(TEST).read_bytes()
    (change,) = update(store, mode, result(verdict, seed=5, session="later"))
    assert change.action == action
    assert change.text.startswith(action)
    stored = store.load(TEST)
    assert stored is not None
    assert len(stored.runs) == (2 if action == "appended" else 1)
    assert (store.path(TEST).read_bytes() == before) == (action in ("kept", "refused"))


def test_the_line_shows_old_and_new(store: BaselineStore) -> None:
    update(store, "all", result())
    (change,) = update(store, "all", result(seed=3))
    assert " → p50 " in change.text
    assert "% time)" in change.text


def test_a_result_that_may_not_become_a_baseline_is_refused(store: BaselineStore) -> None:
    (change,) = update(store, "all", result("passed", run=None))
    assert change.action == "refused"
    assert store.load(TEST) is None


def test_identical_values_do_not_touch_the_file(store: BaselineStore) -> None:
    update(store, "all", result())
    before = store.path(TEST).stat()
    (change,) = update(store, "all", result(session="another session"))
    after = store.path(TEST).stat()
    assert change.action == "unchanged"
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_append_wants_an_unchanged_environment_and_workload(store: BaselineStore) -> None:
    update(store, "all", result())
    newer = msgspec.structs.replace(make.ENVIRONMENT, packages={**make.ENVIRONMENT.packages, "torch": "2.12"})
    run = msgspec.structs.replace(result().run, environment=newer.digest, session="x")
    (change,) = update(store, "append", result(run=run), environment=newer)
    assert (change.action, "torch 2.11.0 → 2.12" in change.text) == ("refused", True)
    (change,) = update(store, "append", result(reference="fp32"))
    assert (change.action, "reference bf16 → fp32" in change.text) == ("refused", True)
    linter = msgspec.structs.replace(make.ENVIRONMENT, packages={**make.ENVIRONMENT.packages, "ruff": "9"})
    run = msgspec.structs.replace(result().run, environment=linter.digest, session="x")
    (change,) = update(store, "append", result(run=run), environment=linter)
    assert change.action == "appended"
    stored = store.load(TEST)
    assert stored is not None
    assert set(stored.environments) == {make.ENVIRONMENT.digest, linter.digest}


def test_append_wants_what_a_whole_recipe_stood_for(store: BaselineStore) -> None:
    first, later = (
        msgspec.structs.replace(result().run, session=session, facts={"recipe": recipe})
        for session, recipe in (("a", "bf16+cudnn+compile"), ("b", "bf16+cudnn+compile:tuned"))
    )
    update(store, "append", result(recipe="fastest_lossless", run=first))
    (change,) = update(store, "append", result(recipe="fastest_lossless", run=later))
    assert change.action == "refused"
    assert "fastest_lossless stood for bf16+cudnn+compile and now for bf16+cudnn+compile:tuned" in change.text
    same = msgspec.structs.replace(first, session="c")
    (change,) = update(store, "append", result(recipe="fastest_lossless", run=same))
    assert change.action == "appended"


@pytest.mark.parametrize(
    ("card", "metric", "action"),
    [("GPU-other", "latency", "appended"), ("GPU-other", "SSIM", "refused"), (None, "latency", "refused")],
)
@pytest.mark.parametrize(("verdict", "update_mode"), [("regressed", "failed"), ("improved", "all")])
def test_append_takes_a_change_of_time_only_from_a_card_that_it_does_not_know(
    store: BaselineStore, card: str | None, metric: str, action: str, verdict: Any, update_mode: str
) -> None:
    update(store, "append", result())
    run = msgspec.structs.replace(result().run, session="later", gpu_uuid=card)
    judgement = Judgement(verdict=verdict, message="because", findings=(Finding(metric=metric, verdict=verdict),))
    (change,) = update(store, "append", result(run=run, judgement=judgement))
    assert change.action == action
    text = f"refused, {verdict}: because; accept the change with --fluxperf-update={update_mode}"
    assert (change.text == text) == (action == "refused")


def test_new_does_not_overwrite_what_was_timed_on_another_cpu(store: BaselineStore) -> None:
    update(store, "new", result(), hardware=make.CPU)
    other = msgspec.structs.replace(make.CPU, name="Xeon")
    timed = result("no baseline", baseline=store.load(TEST))
    (change,) = update(store, "new", timed, hardware=other)
    assert (change.action, "Xeon" in change.text) == ("refused", True)
    assert not accepted(timed, "new", other)
    elsewhere = result("no baseline", workload=make.workload(steps=9), baseline=store.load(TEST))  # a speed-up
    assert accepted(elsewhere, "new", other)
    (change,) = update(store, "new", elsewhere, hardware=other)
    assert change.action == "replaced"


def test_each_result_is_stored_with_the_environment_that_it_was_measured_in(store: BaselineStore) -> None:
    worker = msgspec.structs.replace(make.ENVIRONMENT, flags={"torch.num_threads": "3"})
    run = msgspec.structs.replace(result().run, environment=worker.digest)
    both = {known.digest: known for known in (make.ENVIRONMENT, worker)}
    update(store, "all", result(), result(test="other", run=run), environments=both)
    stored = store.load("other")
    assert stored is not None
    assert stored.environments == {worker.digest: worker}
    changes = update(store, "all", result(seed=1), result(test="other", run=run), environments={worker.digest: worker})
    assert [change.action for change in changes] == ["refused", "unchanged"]
    assert f"the environment {make.ENVIRONMENT.digest} that it was measured in is not known" in changes[0].text


def test_the_same_run_is_not_appended_twice(store: BaselineStore) -> None:
    update(store, "append", result())
    (change,) = update(store, "append", result())
    assert change.action == "unchanged"


def test_new_does_not_overwrite_another_gpus_baseline(store: BaselineStore) -> None:
    update(store, "new", result())
    pcie = msgspec.structs.replace(make.H100, name="NVIDIA H100 PCIe")
    (change,) = update(store, "new", result("no baseline"), hardware=pcie)
    assert (change.action, "NVIDIA H100 PCIe" in change.text) == ("refused", True)
    (change,) = update(store, "all", result("no baseline"), hardware=pcie)
    assert change.action == "replaced"


def test_new_records_another_workload(store: BaselineStore) -> None:
    update(store, "new", result())
    (change,) = update(store, "new", result("no baseline", workload=make.workload(steps=20)))
    assert change.action == "replaced"


def test_an_invalid_result_among_good_ones_moves_nothing(store: BaselineStore) -> None:
    bad = result(test="perf/test_flux.py::test_bad", workload=make.workload(n=7))
    with pytest.raises(FluxPerfError, match="holds 8 for 7 prompts"):
        update(store, "all", result(), bad)
    assert store.load(TEST) is None


def test_a_renamed_file_is_refused(store: BaselineStore) -> None:
    update(store, "all", result())
    other = store.path("perf/test_flux.py::test_other")
    store.path(TEST).rename(other)
    with pytest.raises(FluxPerfError, match=r"\$.test: belongs to"):
        store.load("perf/test_flux.py::test_other")


def test_an_unwritable_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FluxPerfError, match="baselines cannot be written"):
        update(BaselineStore(tmp_path / "file", "cpu"), "all", result())


# Pictures -----------------------------------------------------------------------------------------------


def test_reference_pictures_are_stored_by_content(store: BaselineStore, tmp_path: Path) -> None:
    made = tuple(picture(tmp_path / "run", shade) for shade in range(8))
    update(store, "all", result(references=made), folder=tmp_path / "run")
    stored = store.load(TEST)
    assert stored is not None
    assert [s.reference_picture for s in stored.runs[0].samples] == [p.sha256 for p in made]
    assert store.picture(made[3].sha256).read_bytes() == (tmp_path / "run" / "3.png").read_bytes()


def test_only_pictures_that_this_update_orphaned_are_removed(store: BaselineStore, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    old, new = (tuple(picture(folder, shade) for shade in range(a, a + 8)) for a in (0, 7))
    other = "perf/test_flux.py::test_other"
    stray = store.images / f"{'0' * 64}.png"
    update(store, "all", result(references=old), folder=folder)
    update(store, "all", result(references=(old[0],) * 8, test=other), folder=folder)
    stray.write_bytes(b"kept by hand")
    update(store, "all", result(references=new, seed=4), folder=folder)
    left = {path.stem for path in store.images.iterdir()}
    assert left == {p.sha256 for p in (*new, old[0])} | {"0" * 64}


def test_an_unreadable_neighbour_stops_the_pruning(store: BaselineStore, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    update(store, "all", result(references=tuple(picture(folder, s) for s in range(8))), folder=folder)
    (store.folder / "perf/test_flux/broken.json").write_text("{")
    update(store, "all", result(seed=1), folder=folder)
    assert len(list(store.images.iterdir())) == 8


def test_pictures_that_are_missing_altered_or_lossy_are_refused(store: BaselineStore, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = tuple(picture(folder, shade) for shade in range(8))
    good = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(good + b"x")
    with pytest.raises(FluxPerfError, match="changed after it was measured"):
        update(store, "all", result(references=made), folder=folder)
    (folder / "0.png").unlink()
    with pytest.raises(FluxPerfError, match="is missing"):
        update(store, "all", result(references=made), folder=folder)
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    digest = hashlib.sha256((folder / "a.jpg").read_bytes()).hexdigest()
    lossy = (Picture(path="a.jpg", sha256=digest, width=8, height=8),) * 8
    with pytest.raises(FluxPerfError, match="lossless PNG"):
        update(store, "all", result(references=lossy), folder=folder)
    assert store.load(TEST) is None


def test_a_stored_picture_is_checked(store: BaselineStore, tmp_path: Path) -> None:
    made = tuple(picture(tmp_path / "run", shade) for shade in range(8))
    update(store, "all", result(references=made), folder=tmp_path / "run")
    (store.images / f"{made[0].sha256}.png").write_bytes(b"spoiled")
    (store.images / f"{made[1].sha256}.png").unlink()
    with pytest.raises(FluxPerfError, match="does not match its name"):
        store.picture(made[0].sha256)
    with pytest.raises(FluxPerfError, match="is missing"):
        store.picture(made[1].sha256)


# Two processes at once ----------------------------------------------------------------------------------


def _append_many(root: Path, worker: int, count: int, barrier: Any) -> None:
    store = BaselineStore(root, "h100")
    barrier.wait()
    for i in range(count):
        update(store, "append", result(seed=100 * worker + i, session=f"{worker}-{i}"))


def test_two_processes_that_append_to_one_test_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_append_many, args=(tmp_path, w, 10, barrier)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    stored = BaselineStore(tmp_path, "h100").load(TEST)
    assert stored is not None
    assert {run.session for run in stored.runs} == {f"{w}-{i}" for w in range(3) for i in range(10)}


# Runs of a measurement ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measured",
    [
        make.measurement(problems=("black",)),
        make.measurement(unfit=("hot",)),
        make.measurement(recompiles=1),
        Measurement(generations=()),
    ],
)
def test_what_may_not_become_a_baseline_has_no_run(measured: Measurement) -> None:
    assert record(measured, PictureScores(), session="s", environment=make.ENVIRONMENT, time_utc="") is None


def test_graph_breaks_are_kept() -> None:
    run = record(
        make.measurement(graph_breaks=2), PictureScores(), session="s", environment=make.ENVIRONMENT, time_utc=""
    )
    assert run is not None
    assert run.facts["graph_breaks"] == 2


def test_a_body_without_reference_keeps_its_own_pictures() -> None:
    own = Picture(path="a.png", sha256="a" * 64, width=8, height=8)
    measured = Measurement(generations=(Generation(latency_s=1, wall_s=1, picture=own),))
    for scores in (None, Quality(reference="baseline", scores=(make.score(),), references=(own,))):
        run = record(measured, PictureScores(stored=scores), session="s", environment=make.ENVIRONMENT, time_utc="")
        assert isinstance(run, Run)
        assert run.samples[0].picture == "a" * 64
        assert run.samples[0].reference_picture is None
        assert run.samples[0].score == Similarity()


def test_several_rounds_keep_each_prompts_median() -> None:
    pairs = [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (9.0, 9.0), (1.0, 1.0), (30.0, 20.0)]
    made = tuple(Generation(latency_s=a, wall_s=a, reference_latency_s=b) for a, b in pairs)
    run = record(
        Measurement(generations=made),
        PictureScores(),
        session="s",
        environment=make.ENVIRONMENT,
        time_utc="",
        prompts=2,
    )
    assert run is not None
    assert [(s.latency_s, s.reference_latency_s) for s in run.samples] == [(1.0, 1.0), (30.0, 20.0)]


# Schemas and git ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_committed_schemas_are_in_sync(name: str) -> None:
    committed = (ROOT / "docs/schema" / name).read_text()
    assert committed == schema_text(name), "run: python -m tools.schema docs/schema"


@given(baselines())
@settings(max_examples=30, deadline=None)
def test_written_files_satisfy_the_schema(baseline: Baseline) -> None:
    schema = json.loads(schema_text("baseline-1.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(encode(baseline)), schema)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    schema = json.loads(schema_text("baseline-1.json"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(spoiled(encode(make.baseline()), put("extra", value=1))), schema)


def test_git_never_merges_a_baseline_by_itself() -> None:
    done = subprocess.run(
        ["git", "check-attr", "merge", "diff", "--", "baselines/h100/a/b.json", "baselines/h100/images/c.png"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout")
    assert "baselines/h100/a/b.json: merge: unset" in done.stdout
    assert "baselines/h100/images/c.png: diff: unset" in done.stdout


def test_json_without_end_is_no_baseline() -> None:
    with pytest.raises(FluxPerfError, match=r"deep\.json: .*restore the file"):
        decode(b'{"format": 1, "runs": ' + b"[" * 200_000, "deep.json")


def test_a_picture_is_taken_from_the_runs_folder_only(tmp_path: Path) -> None:
    """A link in it may lead anywhere."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    run = tmp_path / "run"
    run.mkdir()
    (run / "a.png").symlink_to(secret)
    picture = Picture(path="a.png", sha256=digest, width=8, height=8)
    with pytest.raises(FluxPerfError, match=r"a\.png: a picture that the new baseline needs is missing"):
        _read_picture(picture, run)
    (run / "a.png").unlink()
    (run / "a.png").write_bytes(secret.read_bytes())
    assert _read_picture(picture, run) == secret.read_bytes()
