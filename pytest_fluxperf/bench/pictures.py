"""Pictures of one test: validated, kept, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_fluxperf.bench.case import is_noise
from pytest_fluxperf.bench.reference import ReferenceRecipe
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.quality import images, reference
from pytest_fluxperf.results import BASELINE, NONE, Baseline, Measurement, Picture, PictureScores, Quality


class Pictures:
    """Keeps a test's pictures, and compares them with those of its reference."""

    def __init__(self, session: Session, case: Case, recipe: ReferenceRecipe, *, ours: bool) -> None:
        """``ours`` says that the pipeline is one of ours, which makes pictures of the size asked for."""
        self._session = session
        self._case = case
        self._reference = recipe
        self._sides = (case.workload.height, case.workload.width) if ours else (None, None)

    def keep(self, index: int, output: Any, decoded: Any) -> tuple[Picture | None, tuple[str, ...]]:
        """Validate and store the picture of generation ``index``; returns it and what is wrong with it.

        ``output`` is what the body returned, ``decoded`` what the VAE decoded (None where unknown).
        """
        prompts = len(self._case.workload.prompts)
        where = f"picture of prompt {index % prompts + 1} of {prompts}"
        if decoded is not None and (bad := _not_finite(decoded)):
            return None, (f"{where} has {bad} NaN or infinite values",)
        try:
            pictures = images.pictures_of(output)
        except FluxPerfError as error:
            return None, (str(error),)
        problems = [f"{where} {problem}" for pixels in pictures if (problem := images.problem_of(pixels, *self._sides))]
        if is_noise(self._session, self._case):
            return None, tuple(problems)
        # several pictures of one generation are judged side by side as one
        if len({pixels.shape[0] for pixels in pictures}) > 1:
            return None, (f"{where}: the pictures of one generation differ in height",)
        folder = self._session.folder
        return images.save(np.hstack(pictures), folder / "images", folder), tuple(problems)

    def compare(self, measurement: Measurement, baseline: Baseline | None) -> PictureScores:
        """The first round's pictures against the reference, and the reference's against those the baseline stored.

        Raises :class:`FluxPerfError` when sizes differ, a stored picture is lost, or the reference recipe fails.
        """
        if is_noise(self._session, self._case) or self._case.reference == NONE:
            return PictureScores()
        first_round = measurement.generations[: len(self._case.workload.prompts)]
        pictures = [made.picture for made in first_round if made.picture]
        if self._case.reference == BASELINE:
            own = self._stored(baseline, "picture")
            return PictureScores(stored=self._against_stored(pictures, own) if own else None)
        references = self._reference.pictures()
        quality = self._against(pictures, references, self._case.reference)
        stored = self._stored(baseline, "reference_picture")
        moved = bool(stored) and [p.sha256 for p in stored] != [p.sha256 for p in references]
        return PictureScores(reference=quality, drift=self._against_stored(references, stored) if moved else None)

    def _against(self, pictures: Sequence[Picture], references: Sequence[Picture], name: str) -> Quality:
        return reference.compare(pictures, references, name, self._session.metrics, self._session.folder)

    def _against_stored(self, pictures: Sequence[Picture], stored: Sequence[Picture]) -> Quality:
        session = self._session
        return reference.compare(pictures, stored, BASELINE, session.metrics, session.folder, session.store.images)

    def _stored(self, baseline: Baseline | None, field: str) -> list[Picture]:
        """The pictures that a comparable baseline stored, or none."""
        workload = self._case.workload
        if baseline is None or baseline.workload != workload or not baseline.runs:
            return []
        # Of the first run: those of each run that was appended would let them drift step by step.
        hashes = [getattr(sample, field) for sample in baseline.runs[0].samples]
        if not all(hashes):
            return []
        try:
            for digest in hashes:
                self._session.store.picture(digest)
        except FluxPerfError:
            if self._session.settings.update == "all":  # what is lost is recorded anew
                return []
            raise
        size = {"width": workload.width, "height": workload.height}
        return [Picture(path=f"{digest}.png", sha256=digest, **size) for digest in hashes]


def _not_finite(decoded: Any) -> int:
    import torch

    tensor = decoded[0] if isinstance(decoded, tuple | list) else getattr(decoded, "sample", decoded)
    return int((~torch.isfinite(tensor)).sum()) if isinstance(tensor, torch.Tensor) else 0
