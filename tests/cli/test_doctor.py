"""Every check of ``fluxperf doctor``, as it is printed: what is well, what is not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
import sys
from types import SimpleNamespace

import pytest
import records as make

from pytest_fluxperf.baseline.codec import encode
from pytest_fluxperf.cli import doctor, main
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine import hardware, software, telemetry
from pytest_fluxperf.machine.hardware import Gpu
from pytest_fluxperf.pipelines import pool
from pytest_fluxperf.pipelines.tiny import MODEL_DIR
from pytest_fluxperf.results import Telemetry

H100 = Gpu("h100", "cuda:0", make.H100, "GPU-1")
CPU = Gpu("cpu", "cpu", make.CPU)
REPOSITORY = "black-forest-labs/FLUX.1-dev"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "_cpu", lambda: CPU)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path


@pytest.fixture
def on_h100(here, monkeypatch):
    """The same with an H100 that torch can use; the fields of what is returned change what it tells."""
    import torch
    import torch._inductor  # while torch is itself: what is imported beside the stand-in stays half imported
    from diffusers import FluxPipeline  # noqa: F401

    card = SimpleNamespace(gpu=H100, telemetry=Telemetry(), cuda="13.0", available=True, asked=[])

    def check_gpu(requested):
        card.asked.append(requested)
        return card.gpu

    monkeypatch.setattr(hardware, "check_gpu", check_gpu)
    monkeypatch.setattr(software, "_driver", lambda: "580.65")
    monkeypatch.setattr(telemetry, "read", lambda uuid: card.telemetry if uuid == "GPU-1" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card.available)
    monkeypatch.setattr(pool, "survey", lambda device: [(device, None)])  # asks the card, which is not there

    class Version:
        @property
        def cuda(self):
            return card.cuda

    monkeypatch.setattr(torch, "version", Version())
    return card


@pytest.fixture
def versions(monkeypatch):
    """Versions of packages that the test changes; None is not installed."""
    changed: dict[str, str | None] = {}
    real = importlib.metadata.version

    def version(name):
        found = changed[name] if name in changed else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return changed


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub as the local library shows it: ``answer`` is raised when access is asked for."""
    import huggingface_hub
    from huggingface_hub import constants

    state = SimpleNamespace(answer=None, cached=None, asked=[])

    class Api:
        def auth_check(self, repository):
            state.asked.append(repository)
            if state.answer is not None:
                raise state.answer

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: state.cached)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return state


@pytest.fixture
def examined(capsys):
    """``examined(*arguments) -> (exit status, {name: [(status, text), ...]})`` of the printed lines."""

    def run(*arguments):
        status = main(["doctor", *arguments])
        found: dict[str, list[tuple[str, str]]] = {}
        for line in capsys.readouterr().out.splitlines():
            level, name, text = line[:4].strip(), line[6:18].strip(), line[20:]
            found.setdefault(name, []).append((level, text))
        assert all(level in ("ok", "warn", "fail") and text for lines in found.values() for level, text in lines)
        assert status == int(any(level == "fail" for lines in found.values() for level, _ in lines))
        return status, found

    return run


def refused(kind):
    """One of the hub's errors as it is raised."""
    return kind("401 Client Error", response=SimpleNamespace(headers={}, status_code=401, request=None, text=""))


def record(root, gpu, *, runs=3, **changes):
    """A baseline file of three sessions (or fewer)."""
    sessions = [make.run(make.measurement(make.latencies(seed=i)), session=f"s{i}") for i in range(runs)]
    path = root / gpu / "suite" / "test_a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(make.baseline(*sessions, **changes)))
    return path


# The device ----------------------------------------------------------------------------------------------


def test_a_cpu_that_was_asked_for_is_fine(here, examined):
    record(here / "baselines", "cpu", hardware=make.CPU)
    status, found = examined("--gpu", "cpu")
    assert status == 0
    assert found["device"] == [("ok", "AMD EPYC 7B13, 2 CPUs")]
    assert "fitness" not in found
    assert {name: lines for name, lines in found.items() if any(level != "ok" for level, _ in lines)} == {}


def test_no_gpu_where_one_may_be_is_a_warning(here, examined, monkeypatch):
    monkeypatch.setattr(hardware, "check_gpu", lambda requested: CPU)
    status, found = examined()
    assert status == 0
    assert found["device"] == [("warn", "no NVIDIA GPU answers; --gpu cpu works here (AMD EPYC 7B13, 2 CPUs)")]


def test_a_gpu_that_is_not_there_fails_and_the_rest_is_examined(here, examined, monkeypatch):
    def absent(requested):
        raise FluxPerfError(f"--gpu {requested}: no NVIDIA driver answers; use --gpu cpu, or run it where that GPU is")

    monkeypatch.setattr(hardware, "check_gpu", absent)
    record(here / "baselines", "cpu", hardware=make.CPU)
    status, found = examined("--gpu", "h200")
    assert status == 1
    assert found["device"][0][0] == "fail"
    assert "use --gpu cpu" in found["device"][0][1]
    assert found["model"][0][1].startswith("tiny: whole")
    assert [level for level, _ in found["baselines"]] == ["ok"]  # writable; whose to look at is not known


def test_a_gpu_is_named_as_the_option_wants_it(on_h100, examined):
    status, found = examined("--gpu", "h100", "--model", "tiny")
    assert on_h100.asked == ["h100"]
    assert found["device"] == [("ok", "NVIDIA H100 80GB HBM3, 80 GiB, power limit 700 W: --gpu h100")]
    assert found["fitness"] == [("ok", "not throttled, no other process on it")]
    assert found["torch"][0][1].endswith("for CUDA 13.0, driver 580.65")
    assert found["recipes"] == [("ok", "1 of 1 tokens run here; fluxperf recipes says what the others lack")]
    assert status == 0


def test_a_gpu_that_is_not_fit_to_measure_is_a_warning(on_h100, examined):
    on_h100.telemetry = Telemetry(throttle_reasons=("hardware thermal slowdown",), other_processes=(77,))
    status, found = examined("--model", "tiny")
    ((level, text),) = found["fitness"]
    assert (status, level) == (0, "warn")
    assert "throttled (hardware thermal slowdown); another process was on the GPU (pid 77)" in text
    assert "would be invalid" in text


# Packages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cuda": None}, "has no CUDA: install a CUDA build of torch to use the GPU"),
        ({"available": False}, "for CUDA 13.0 cannot use the GPU; is driver 580.65 new enough?"),
    ],
)
def test_a_torch_that_cannot_use_the_gpu_fails(on_h100, examined, changes, complaint):
    vars(on_h100).update(changes)
    status, found = examined("--model", "tiny")
    ((level, text),) = found["torch"]
    assert (status, level) == (1, "fail")
    assert text.endswith(complaint)


def test_without_the_stack_each_package_says_how_to_get_it(here, examined, versions, monkeypatch):
    versions |= dict.fromkeys((*doctor.REQUIRED, *doctor.OPTIONAL))
    for name in ("torch", "diffusers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    status, found = examined("--gpu", "cpu", "--model", "flux-dev")
    assert status == 1
    assert [level for level, _ in found["torch"]] == ["fail", "fail"]
    assert "https://pytorch.org" in found["torch"][0][1]
    assert found["torch"][1][1] == "is not installed; pip install 'torch>=2.11'"
    assert found["diffusers"] == [("fail", "is not installed; pip install 'diffusers>=0.42'")]
    assert found["pipeline"][0][0] == "fail"
    assert found["para-attn"] == [("warn", "is not installed: no fbcache:T,engine=para-attn; pip install para-attn")]
    assert found["model"][0][0] == "fail"
    assert "pip install huggingface_hub" in found["model"][0][1]
    assert found["kernel cache"][0][0] == "ok"  # it went on to the end


def test_an_old_package_is_a_warning(here, examined, versions):
    versions["diffusers"] = "0.34.0"
    status, found = examined("--gpu", "cpu")
    assert status == 0
    assert found["diffusers"] == [("warn", "0.34.0 is older than 0.42, the oldest that is known to work")]


def test_a_pipeline_that_cannot_be_imported_fails_with_the_cause(here, examined, monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setitem(sys.modules, "diffusers", Broken())
    status, found = examined("--gpu", "cpu")
    assert status == 1
    ((level, text),) = found["pipeline"]
    assert level == "fail"
    assert text.endswith("RuntimeError: operator torchvision::nms does not exist")


def test_the_oldest_versions_are_those_of_the_package():
    """What is required here is what the installation asks for."""
    asked = {}
    for requirement in importlib.metadata.requires("pytest-fluxperf") or ():
        name, _, rest = requirement.partition(">=")
        asked[name] = rest.partition(";")[0].strip()
    assert {name: ".".join(map(str, oldest)) for name, oldest in doctor.REQUIRED.items()} == {
        name: asked[name] for name in doctor.REQUIRED
    }


# The model -----------------------------------------------------------------------------------------------


def test_random_weights_need_nothing(here, examined):
    _, found = examined("--gpu", "cpu", "--model", "flux-dev@random")
    assert found["model"] == [("ok", "flux-dev@random: random weights, built on the device")]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "weights file is missing"),
        (
            lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"PK\3\4" * 9),
            "not a safetensors file",
        ),
        (lambda folder: (folder / "model_index.json").write_text('{"_class_name": "SanaPipeline"}'), "is a SanaPip"),
        (shutil.rmtree, "no such folder and no known name"),
    ],
)
def test_a_damaged_or_absent_folder_is_told_by_its_file(here, examined, damage, complaint):
    folder = here / "model"
    shutil.copytree(MODEL_DIR, folder)
    _, found = examined("--gpu", "cpu", "--model", str(folder))
    assert found["model"] == [("ok", f"model: whole, in {folder}")]
    damage(folder)
    status, found = examined("--gpu", "cpu", "--model", str(folder))
    ((level, text),) = found["model"]
    assert (status, level) == (1, "fail")
    assert str(folder) in text
    assert complaint in text


def test_a_gpu_looks_for_flux_dev_and_the_cache_is_enough(on_h100, examined, hub):
    hub.cached = str(MODEL_DIR / "model_index.json")
    status, found = examined()
    assert status == 0
    assert found["model"] == [("ok", f"{REPOSITORY}: whole, in the local cache")]
    assert hub.asked == []


def test_a_partly_downloaded_model_is_not_taken_for_a_whole_one(here, on_h100, examined, hub, monkeypatch):
    from huggingface_hub import constants

    snapshot = here / "snapshot"
    shutil.copytree(MODEL_DIR, snapshot)
    weights = snapshot / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    hub.cached = str(snapshot / "model_index.json")
    lacking = f"is incomplete in the local cache ({weights}: the weights file is missing)"
    status, found = examined()
    assert (status, hub.asked) == (0, [REPOSITORY])
    assert found["model"] == [
        ("warn", f"{REPOSITORY} may be used but {lacking}; fetch it with `hf download {REPOSITORY}`")
    ]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    status, found = examined()
    ((level, text),) = found["model"]
    assert (status, level) == (1, "fail")
    assert text.startswith(f"{REPOSITORY} {lacking} and HF_HUB_OFFLINE is set; ")
    assert text.endswith(f"`hf auth login` if it is gated or private, then `hf download {REPOSITORY}`")


def test_access_without_the_weights_is_a_warning(here, examined, hub):
    status, found = examined("--gpu", "cpu", "--model", "flux-dev")
    assert status == 0
    assert hub.asked == [REPOSITORY]
    assert found["model"] == [
        (
            "warn",
            f"{REPOSITORY} may be used but is not in the local cache; fetch it with `hf download {REPOSITORY}`",
        )
    ]


def test_a_gated_model_names_the_licence_and_both_commands(here, examined, hub):
    from huggingface_hub import errors

    hub.answer = refused(errors.GatedRepoError)
    status, found = examined("--gpu", "cpu", "--model", "flux-dev")
    ((level, text),) = found["model"]
    assert (status, level) == (1, "fail")
    for part in (f"https://huggingface.co/{REPOSITORY}", "`hf auth login`", f"`hf download {REPOSITORY}`"):
        assert part in text


def test_a_model_that_the_hub_does_not_have_fails(here, examined, hub):
    from huggingface_hub import errors

    hub.answer = refused(errors.RepositoryNotFoundError)
    status, found = examined("--gpu", "cpu", "--model", "someone/else")
    assert (status, found["model"][0][0]) == (1, "fail")
    for part in ("the hub has no someone/else, or it is private", "`hf auth login`", "`hf download someone/else`"):
        assert part in found["model"][0][1]


def test_a_hub_that_cannot_be_reached_fails_with_the_command(here, examined, hub, monkeypatch):
    from huggingface_hub import constants

    hub.answer = ConnectionError("Name or service not known")
    status, found = examined("--gpu", "cpu", "--model", "flux-dev")
    assert status == 1
    assert "the hub does not answer (ConnectionError: Name or service not known)" in found["model"][0][1]
    for command in ("`hf auth login`", f"`hf download {REPOSITORY}`"):
        assert command in found["model"][0][1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    status, found = examined("--gpu", "cpu", "--model", "flux-dev")
    assert (status, found["model"][0][0], hub.asked) == (1, "fail", [])
    assert "HF_HUB_OFFLINE is set" in found["model"][0][1]


# Folders -------------------------------------------------------------------------------------------------


def test_missing_baselines_say_how_to_record_them(here, examined):
    status, found = examined("--gpu", "cpu")
    assert status == 0
    assert found["baselines"] == [
        ("warn", "there is no folder baselines: record one with pytest ... --fluxperf-update")
    ]
    assert not (here / "baselines").exists()


def test_baselines_of_other_hardware_only(here, examined):
    record(here / "elsewhere", "h100")
    (here / "elsewhere" / "published").mkdir()
    _, found = examined("--gpu", "cpu", "--baselines", "elsewhere")
    assert found["baselines"][-1] == ("warn", "none for cpu (there is h100): record them with --fluxperf-update")


@pytest.mark.parametrize(("runs", "level"), [(3, "ok"), (2, "warn")])
def test_baselines_want_three_sessions(on_h100, here, examined, runs, level):
    record(here / "baselines", "h100", runs=runs)
    _, found = examined("--model", "tiny")
    found_level, text = found["baselines"][-1]
    assert found_level == level
    assert f"1 in baselines/h100, of {runs} sessions or more" in text
    assert ("--fluxperf-append" in text) == (level == "warn")


def test_a_baseline_of_another_card_or_a_damaged_one_fails(on_h100, here, examined):
    import msgspec

    path = record(here / "baselines", "h100", hardware=msgspec.structs.replace(make.H100, power_limit_w=350.0))
    status, found = examined("--model", "tiny")
    assert (status, found["baselines"][-1][0]) == (1, "fail")
    assert "a power limit of 350 W, this has 700 W; record it anew with --fluxperf-update" in found["baselines"][-1][1]
    path.write_text(json.dumps({"format": 1}))
    status, found = examined("--model", "tiny")
    assert (status, found["baselines"][-1][0]) == (1, "fail")
    assert str(path.relative_to(here)) in found["baselines"][-1][1]
    assert "restore the file from version control" in found["baselines"][-1][1]


def test_folders_that_cannot_be_used_fail(here, examined, monkeypatch):
    (here / "baselines").write_text("a file")
    (here / "reports").write_text("a file")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(here / "reports" / "kernels"))
    status, found = examined("--gpu", "cpu")
    assert status == 1
    assert found["baselines"] == [("fail", "baselines is no folder; name another with --baselines")]
    assert found["reports"] == [("fail", "reports cannot be written (Not a directory)")]
    assert found["kernel cache"][0][0] == "fail"


def test_a_folder_without_permission_fails(here, examined, monkeypatch):
    record(here / "baselines", "cpu", hardware=make.CPU)

    def refuse(*, dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    status, found = examined("--gpu", "cpu")
    assert status == 1
    assert found["baselines"][0] == ("fail", "baselines cannot be written (Permission denied)")
    assert found["reports"] == [("fail", "reports cannot be written (Permission denied)")]


def test_nothing_is_made(here, examined):
    examined("--gpu", "cpu", "--baselines", "a/b", "--reports", "c/d")
    assert list(here.iterdir()) == []
