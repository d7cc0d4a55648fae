from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.quality.images import save
from pytest_fluxperf.quality.metrics import Metrics
from pytest_fluxperf.quality.reference import References, compare
from pytest_fluxperf.results import PSNR_CAP_DB, Prompt, Workload

ALL = ("psnr", "ssim", "ms-ssim", "flip")


def scene(size: int = 192) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    return np.stack([x, y, 0.5 + 0.4 * np.sin(20 * x * y)], axis=-1).astype(np.float32)


def noisy(level: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, level, scene().shape)
    return (scene() + noise).clip(0, 1).astype(np.float32)


def test_identical_pictures_have_the_best_of_every_metric():
    score, flip_map = Metrics(ALL).compare(scene(), scene())
    assert (score.psnr_db, score.flip) == (PSNR_CAP_DB, 0)
    assert score.ssim == pytest.approx(1, abs=1e-5)
    assert score.ms_ssim == pytest.approx(1, abs=1e-5)
    assert flip_map is not None
    assert flip_map.shape == scene().shape


def test_psnr_is_that_of_its_definition():
    score, _ = Metrics(("psnr",)).compare(scene() * 0 + 0.5, scene() * 0 + 0.6)
    assert score.psnr_db == pytest.approx(20, abs=1e-3)  # 10·log10(1 / 0.1²)


def test_more_noise_is_worse_by_every_metric():
    little, much = (Metrics(ALL).compare(noisy(level), scene())[0] for level in (0.02, 0.1))
    assert little.psnr_db > much.psnr_db
    assert little.ssim > much.ssim
    assert little.ms_ssim > much.ms_ssim
    assert little.flip < much.flip


def test_a_shift_by_eight_pixels_is_seen():
    shifted = np.roll(scene(), 8, axis=1)
    assert Metrics(("ssim",)).compare(shifted, scene())[0].ssim < 0.98


def test_ms_ssim_needs_160_pixels_and_is_left_out_below():
    score, _ = Metrics(ALL).compare(scene(128), scene(128))
    assert score.ms_ssim is None
    assert score.ssim is not None


def test_sizes_are_never_made_to_match():
    with pytest.raises(FluxPerfError, match="128×128 pixels with a reference of 192×192"):
        Metrics(ALL).compare(scene(128), scene(192))


def test_a_metric_that_is_not_finite_is_an_error():
    with pytest.raises(FluxPerfError, match="could not be computed"):
        Metrics(("ssim",)).compare(scene() * np.nan, scene())


def test_lpips_without_its_package_is_an_error_not_a_silent_skip(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(FluxPerfError, match=r"torchvision is not installed: pip install 'pytest-fluxperf\[lpips\]'"):
        Metrics(("lpips",))


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """``torchvision(code)`` makes it a module of that content."""

    def install(code=""):
        (tmp_path / "torchvision.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)

    yield install
    sys.modules.pop("torchvision", None)


def test_a_torchvision_of_another_torch_is_told_from_missing_weights(torchvision):
    torchvision("raise RuntimeError('operator torchvision::nms does not exist')")
    complaint = (
        r"torchvision cannot be imported \(RuntimeError: operator torchvision::nms .*: install the build that belongs"
    )
    with pytest.raises(FluxPerfError, match=complaint):
        Metrics(("lpips",))


class FakeLpips:
    """As torchmetrics' class looks from here; ``problem`` is raised when it is made."""

    problem: Exception | None = None

    def __init__(self, net_type, normalize):
        assert (net_type, normalize) == ("alex", True)  # pictures in [0, 1]
        if self.problem is not None:
            raise self.problem

    def eval(self):
        return self

    def to(self, device):
        return self

    def __call__(self, a, b):
        return (a - b).abs().mean()


@pytest.fixture
def fake_lpips(torchvision, monkeypatch):
    torchvision()
    module = ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = FakeLpips
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", module)
    return monkeypatch


def test_lpips_without_its_weights_says_how_to_get_them(fake_lpips):
    fake_lpips.setattr(FakeLpips, "problem", OSError("<urlopen error\nno network>"))
    with pytest.raises(FluxPerfError, match=r"weights are not at hand \(OSError: <urlopen error no .*alexnet\(weights"):
        Metrics(("lpips",))


def test_lpips_is_computed_where_its_weights_are(fake_lpips):
    score, _ = Metrics(("ssim", "lpips")).compare(scene() * 0.9, scene())
    assert score.lpips == pytest.approx(float(np.abs(scene() * 0.1).mean()), rel=1e-4)


def test_references_are_made_once_and_shared(tmp_path):
    workload = Workload(model="m", prompts=(Prompt(text="a", seed=0),), height=192, width=192, steps=1, guidance=1.0)
    made = []

    def make():
        made.append(1)
        return [save(scene(), tmp_path / "images", tmp_path)]

    first = References(tmp_path).get(workload, "fp32", make)
    again = References(tmp_path).get(workload, "fp32", make)  # as another worker does
    assert first == again
    assert len(made) == 1
    References(tmp_path).get(workload, "bf16", make)
    assert len(made) == 2


def test_comparing_stores_maps_and_copies_foreign_references(tmp_path):
    ours, theirs = tmp_path / "run", tmp_path / "baseline"
    picture = save(noisy(0.05), ours / "images", ours)
    stored = save(scene(), theirs, theirs)
    quality = compare([picture], [stored], "baseline", Metrics(ALL), ours, theirs)
    assert quality.scores[0].ssim < 1
    assert (ours / quality.references[0].path).is_file()
    assert quality.references[0].sha256 == stored.sha256
    assert (ours / quality.flip_maps[0].path).is_file()
