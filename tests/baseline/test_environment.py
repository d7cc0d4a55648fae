"""Hardware is faked through NVML's own function names: the tests run where no GPU is."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import records as make

import pytest_fluxperf
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine import hardware, runtimes
from pytest_fluxperf.machine.hardware import check_gpu, detect_hardware, gpu_folder, hardware_differences
from pytest_fluxperf.machine.software import capture, diff, differences, distributions, stack_differences
from pytest_fluxperf.results import Environment


@dataclass
class Card:
    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-11111111-aaaa"
    mib: int = 81559
    watts: float = 700.0
    mig: list[Card] = field(default_factory=list)
    parent: Card | None = None


class FakeNvml:
    """As much of pynvml as environment.py asks for."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: Card, driver: str = "580.65", bytes_: bool = False) -> None:
        self.cards, self.driver, self.bytes = cards, driver, bytes_
        self.open = 0
        for card in cards:
            for part in card.mig:
                part.parent = card

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def _text(self, value: str) -> str | bytes:
        return value.encode() if self.bytes else value

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self._text(self.driver)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in self.cards:
            for part in card.mig:
                if part.uuid == uuid:
                    return part
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetName(self, card: Card) -> str | bytes:
        return self._text(card.name)

    def nvmlDeviceGetUUID(self, card: Card) -> str | bytes:
        return self._text(card.uuid)

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:
        return SimpleNamespace(total=card.mib << 20)

    def nvmlDeviceGetEnforcedPowerLimit(self, card: Card) -> int:
        if card.parent is not None:
            raise self.NVMLError("Not Supported")
        return int(card.watts * 1000)

    def nvmlDeviceGetMigMode(self, card: Card) -> tuple[int, int]:
        if card.parent is not None:
            raise self.NVMLError("Invalid Argument")
        return (1, 1) if card.mig else (0, 0)

    def nvmlDeviceIsMigDeviceHandle(self, card: Card) -> bool:
        return card.parent is not None

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:
        return card.mig[index]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: Card) -> Card | None:
        return card.parent


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def install(*cards: Card, **options: Any) -> FakeNvml:
        fake = FakeNvml(*cards, **options)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


# Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "folder"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GH200 480GB", "gh200-480gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100-16gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-laptop"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-blackwell-server"),
    ],
)
def test_gpu_folder(product: str, folder: str) -> None:
    assert gpu_folder(product) == folder


def test_a_mig_slice_has_a_folder_of_its_own() -> None:
    assert gpu_folder("NVIDIA H100 80GB HBM3", "1g.10gb") == "h100-mig-1g.10gb"


# --gpu --------------------------------------------------------------------------------------------------


def test_the_gpu_asked_for(nvml: Any) -> None:
    fake = nvml(Card(), bytes_=True)
    for asked in ("h100", "H100", " auto "):
        gpu = check_gpu(asked)
        assert (gpu.name, gpu.device, gpu.uuid) == ("h100", "cuda:0", "GPU-11111111-aaaa")
    assert gpu.hardware.kind == "cuda"
    assert (gpu.hardware.name, gpu.hardware.memory_mib, gpu.hardware.power_limit_w) == (
        "NVIDIA H100 80GB HBM3", 81559, 700.0,
    )  # fmt: skip
    assert fake.open == 0


def test_another_gpu_is_an_error_that_names_both(nvml: Any) -> None:
    nvml(Card("NVIDIA A100-SXM4-40GB"))
    with pytest.raises(FluxPerfError, match=r"--gpu h100: this machine has NVIDIA A100-SXM4-40GB; use --gpu a100-40gb"):
        check_gpu("h100")


@pytest.mark.parametrize("other", ["NVIDIA H100 PCIe", "NVIDIA H100 NVL"])
def test_the_form_factor_counts(nvml: Any, other: str) -> None:
    nvml(Card(other))
    with pytest.raises(FluxPerfError, match=other):
        check_gpu("h100")


@pytest.mark.parametrize("asked", ["h100", "h10o", "../x", ""])
def test_no_gpu_at_all(nvml: Any, asked: str) -> None:
    nvml(driver="")
    with pytest.raises(FluxPerfError, match="no NVIDIA driver answers; use --gpu cpu"):
        check_gpu(asked)
    assert check_gpu("auto").name == "cpu"


def test_cpu_asks_nobody(nvml: Any) -> None:
    nvml(Card())
    gpu = check_gpu("cpu")
    assert (gpu.name, gpu.device, gpu.uuid, gpu.hardware.kind) == ("cpu", "cpu", None, "cpu")


def test_a_hidden_gpu_is_none(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(Card())
    for mask in ("", "-1", "3", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        with pytest.raises(FluxPerfError, match="CUDA_VISIBLE_DEVICES="):
            check_gpu("h100")
        assert check_gpu("auto").name == "cpu"


def test_the_gpu_that_is_visible_is_the_one_that_counts(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(Card(), Card("NVIDIA L40S", "GPU-22222222-bbbb", 46068, 350.0))
    with pytest.raises(FluxPerfError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        check_gpu("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2222")
    assert check_gpu("l40s").uuid == "GPU-22222222-bbbb"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert check_gpu("auto").name == "l40s"
    assert detect_hardware("cuda:1").name == "NVIDIA H100 80GB HBM3"
    with pytest.raises(FluxPerfError, match="cuda:2"):
        detect_hardware("cuda:2")


def test_two_gpus_of_a_kind_need_no_order(nvml: Any) -> None:
    nvml(Card(), Card(uuid="GPU-3"))
    assert check_gpu("h100").uuid == "GPU-11111111-aaaa"


def test_mig(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slice_ = Card("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-5", 9728)
    nvml(Card(mig=[slice_]))
    for mask in ("0", "MIG-5"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        gpu = check_gpu("auto")
        assert gpu.name == "h100-mig-1g.10gb"
        assert (gpu.hardware.mig_profile, gpu.hardware.memory_mib) == ("1g.10gb", 9728)
        assert gpu.hardware.power_limit_w == 700.0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-6")
    assert check_gpu("auto").name == "cpu"


def test_cpu_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7B13\n")
    monkeypatch.setattr(hardware, "CPUINFO", file)
    assert detect_hardware("cpu").name == "AMD EPYC 7B13"
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "absent")
    assert detect_hardware("cpu").name


def test_hardware_differences() -> None:
    other = msgspec.structs.replace(make.CPU, name="Xeon")
    assert hardware_differences(make.CPU, other) == []
    assert hardware_differences(make.CPU, other, cpu_model=True) == ["AMD EPYC 7B13, this is Xeon"]
    assert hardware_differences(make.H100, make.H100) == []


# Software -----------------------------------------------------------------------------------------------


def test_capture(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(Card())
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("LD_PRELOAD", "/opt/secret/libtcmalloc.so:/x/libiomp5.so")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setitem(sys.modules, "torch", None)
    found = capture()
    assert found.packages["pytest"] == distributions()["pytest"] == pytest.__version__
    assert found.driver == "580.65"
    assert (found.flags["OMP_NUM_THREADS"], found.flags["LD_PRELOAD"]) == ("2", "libtcmalloc.so libiomp5.so")
    assert b"secret" not in msgspec.json.encode(found)
    assert capture().digest == found.digest


def test_capture_reads_torch_where_it_is_imported(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(driver="")

    def raises() -> str:
        raise RuntimeError("mixed settings")

    torch = SimpleNamespace(
        version=SimpleNamespace(cuda="13.0"),
        backends=SimpleNamespace(
            cudnn=SimpleNamespace(version=lambda: 91300, benchmark=False, allow_tf32=True), cuda=SimpleNamespace()
        ),
        get_float32_matmul_precision=raises,
        get_num_threads=lambda: 2,
        get_num_interop_threads=lambda: 1,
        are_deterministic_algorithms_enabled=lambda: False,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = capture()
    assert (found.cuda, found.cudnn, found.driver) == ("13.0", "91300", None)
    assert found.flags["torch.num_threads"] == "2"
    assert "torch.float32_matmul_precision" not in found.flags


def test_importing_it_brings_no_torch() -> None:
    import subprocess

    code = (
        "import sys, pytest_fluxperf.gate.verdict, pytest_fluxperf.baseline.store as s; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_are_normalized() -> None:
    assert all(name == name.lower() and "_" not in name and "." not in name for name in distributions())


def test_the_plugin_is_named_also_where_it_runs_from_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [])
    assert distributions() == {"pytest-fluxperf": pytest_fluxperf.__version__}


def test_diff_puts_the_stack_first() -> None:
    old = make.ENVIRONMENT
    new = msgspec.structs.replace(
        old,
        packages={"torch": "2.12.0", "ruff": "0.13", "accelerate": "1.0", "aaa": "1"},
        driver="580",
        flags={"OMP_NUM_THREADS": "1"},
    )
    assert diff(old, new) == [
        ("torch", "2.11.0", "2.12.0"),
        ("diffusers", "0.42.1", "absent"),
        ("accelerate", "absent", "1.0"),
        ("driver", "absent", "580"),
        ("OMP_NUM_THREADS", "absent", "1"),
        ("aaa", "absent", "1"),
        ("ruff", "0.12", "0.13"),
    ]
    assert [name for name, _, _ in stack_differences(old, new)][-1] == "OMP_NUM_THREADS"
    assert diff(old, old) == []


# Runtime libraries --------------------------------------------------------------------------------------


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What this process has mapped, by path."""
    file = tmp_path / "maps"
    monkeypatch.setattr(runtimes, "_MAPS", file)

    def write(*paths: str) -> None:
        lines = [f"7f00-7f01 r-xp 00000000 fe:00 12 {path}" for path in paths]
        file.write_text("\n".join([*lines, "7ffd-7ffe rw-p 00000000 00:00 0 [stack]", "7fff-8000 rw-p 0 00:00 0"]))

    write()
    return write


def test_the_library_that_is_mapped_says_its_version(maps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def ask(which: int, number: Any) -> int:
        number._obj.value = (13, 0, 2)[which]
        return 0

    monkeypatch.setattr("ctypes.CDLL", lambda path: opened.append(path) or SimpleNamespace(cublasGetProperty=ask))
    maps("/opt/x/libcublasLt.so.13", "/opt/my libs/libcublas.so.13")
    assert runtimes.versions()["cublas"] == "13.0.2"
    assert opened == ["/opt/my libs/libcublas.so.13"]
    maps("/opt/x/libcublasLt.so.13")
    assert "cublas" not in runtimes.versions()


def test_a_library_that_does_not_tell_is_left_out(maps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    maps("/opt/x/libcublas.so.13")
    monkeypatch.setattr("ctypes.CDLL", lambda path: SimpleNamespace())
    assert "cublas" not in runtimes.versions()
    monkeypatch.setattr("ctypes.CDLL", lambda path: SimpleNamespace(cublasGetProperty=lambda *_: 1))
    assert "cublas" not in runtimes.versions()


def test_nccl_and_kernels_of_the_hub(maps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nccl = SimpleNamespace(version=lambda: (2, 28, 9))
    torch = SimpleNamespace(version=SimpleNamespace(cuda="13.0"), cuda=SimpleNamespace(nccl=nccl))
    monkeypatch.setitem(sys.modules, "torch", torch)
    revision = "0123456789abcdef0123456789abcdef01234567"
    place = f"/cache/hub/models--kernels-community--flash-attn3/snapshots/{revision}/build/torch-cu130/fa3/__init__.py"
    monkeypatch.setitem(sys.modules, "fa3_1f2e", SimpleNamespace(__file__=place))
    assert runtimes.versions() == {"nccl": "2.28.9", "hub:kernels-community/flash-attn3": revision}
    torch.version.cuda = None
    assert "nccl" not in runtimes.versions()


def test_a_runtime_that_one_side_does_not_name_is_unknown_there() -> None:
    old = make.ENVIRONMENT
    new = msgspec.structs.replace(old, runtimes={"cublas": "13.0.2", "hub:a/b": "0123456789"})
    moved = msgspec.structs.replace(new, runtimes={"cublas": "13.1.0", "hub:a/b": "0123456780", "nccl": "2.28.9"})
    assert diff(old, new) == diff(new, old) == []
    assert diff(new, moved) == [("cublas", "13.0.2", "13.1.0"), ("hub:a/b", "0123456789", "0123456780")]
    assert all(difference.suspect for difference in differences([new], [moved]))
    assert stack_differences(new, moved) == diff(new, moved)


def test_an_environment_without_runtimes_keeps_its_name() -> None:
    """The name is a digest, by which stored baselines point at it."""
    fields = {"python": "3.11.9", "platform": "Linux x86_64", "packages": {"torch": "2.11.0"}}
    assert (
        msgspec.convert(fields, Environment).digest
        == hashlib.sha256(b'{"packages":{"torch":"2.11.0"},"platform":"Linux x86_64","python":"3.11.9"}').hexdigest()[
            :12
        ]
    )


def test_what_torch_brings_along_is_no_suspect_of_its_own() -> None:
    old = msgspec.structs.replace(make.ENVIRONMENT, runtimes={"cublas": "13.0.2"})
    packages = {**old.packages, "torch": "2.12.0"}
    new = msgspec.structs.replace(old, runtimes={"cublas": "13.1.0"}, packages=packages)
    assert [(d.name, d.rides_on) for d in differences([old], [new])] == [("torch", None), ("cublas", "torch")]
