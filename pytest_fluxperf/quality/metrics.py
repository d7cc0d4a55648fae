"""Image similarity by well-kept libraries: torchmetrics for PSNR, SSIM, MS-SSIM and LPIPS, flip-evaluator for FLIP.

FLIP: Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", HPG 2020; it also gives the error map.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_fluxperf.errors import FluxPerfError, one_line
from pytest_fluxperf.quality.custom_metrics import PictureMetric
from pytest_fluxperf.quality.images import Pixels
from pytest_fluxperf.results import PSNR_CAP_DB, Similarity

MS_SSIM_MIN_SIDE = 161
"""MS-SSIM halves the picture four times under an 11-pixel window, so both sides must exceed 160 pixels."""


class Metrics:
    """Computes the chosen metrics (``psnr``, ``ssim``, ``ms-ssim``, ``flip``, ``lpips``) of picture pairs.

    ``own`` are the project's, by name; :func:`pytest_fluxperf.quality.reference.compare` asks them for their values.
    Raises :class:`FluxPerfError` at once when LPIPS is asked for and cannot be computed: torchvision and
    its AlexNet weights must be at hand.
    """

    def __init__(
        self, names: Sequence[str], device: str = "cpu", own: Mapping[str, PictureMetric] | None = None
    ) -> None:
        self.own = dict(own or {})
        self._names = tuple(names)
        self._device = device
        self._lpips: Any = _lpips(device) if "lpips" in self._names else None

    def compare(self, picture: Pixels, reference: Pixels) -> tuple[Similarity, Pixels | None]:
        """Metrics of one picture against its reference, and the FLIP map as a picture (None without FLIP).

        Both float32 HWC in [0, 1] and of one size; nothing is resized. Raises :class:`FluxPerfError`
        when the sizes differ or a metric is not finite.
        """
        import torch
        from torchmetrics.functional import image as tm

        if picture.shape != reference.shape:
            (h, w), (rh, rw) = picture.shape[:2], reference.shape[:2]
            raise FluxPerfError(f"cannot compare a picture of {w}×{h} pixels with a reference of {rw}×{rh}")
        a, b = (torch.from_numpy(p.transpose(2, 0, 1)[None].copy()).to(self._device) for p in (picture, reference))
        values: dict[str, float | None] = {}
        flip_map: Pixels | None = None
        if "psnr" in self._names:
            psnr = float(tm.peak_signal_noise_ratio(a, b, data_range=1.0)) if not torch.equal(a, b) else PSNR_CAP_DB
            values["psnr_db"] = min(psnr, PSNR_CAP_DB)
        if "ssim" in self._names:
            values["ssim"] = float(tm.structural_similarity_index_measure(a, b, data_range=1.0))
        if "ms-ssim" in self._names and min(picture.shape[:2]) >= MS_SSIM_MIN_SIDE:
            values["ms_ssim"] = float(tm.multiscale_structural_similarity_index_measure(a, b, data_range=1.0))
        if "flip" in self._names:
            values["flip"], flip_map = _flip(picture, reference)
        if self._lpips is not None:
            with torch.no_grad():
                values["lpips"] = float(self._lpips(a, b))
        for name, value in values.items():
            if value is None or not np.isfinite(value):
                raise FluxPerfError(f"{name} of the pictures could not be computed (got {value})")
        return Similarity(**values), flip_map


def _flip(picture: Pixels, reference: Pixels) -> tuple[float, Pixels]:
    import flip_evaluator

    error_map, mean, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(reference), np.ascontiguousarray(picture), "LDR", applyMagma=True
    )
    return float(mean), np.asarray(error_map, dtype=np.float32)


def _lpips(device: str) -> Any:
    if importlib.util.find_spec("torchvision") is None:
        raise FluxPerfError(
            "LPIPS was asked for but torchvision is not installed: pip install 'pytest-fluxperf[lpips]', "
            "or leave lpips out of --fluxperf-metrics"
        )
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # most often a build for another torch: "operator torchvision::nms does not exist"
        raise FluxPerfError(
            f"LPIPS was asked for but torchvision cannot be imported ({one_line(error)}): install the build that "
            "belongs to the installed torch, or leave lpips out of --fluxperf-metrics"
        ) from None
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).eval().to(device)
    except Exception as error:  # the backbone's download fails in as many ways as there are networks
        raise FluxPerfError(
            f"LPIPS was asked for but its AlexNet weights are not at hand ({one_line(error)}): download them once with "
            "python -c 'import torchvision; torchvision.models.alexnet(weights=\"DEFAULT\")', "
            "or leave lpips out of --fluxperf-metrics"
        ) from None
