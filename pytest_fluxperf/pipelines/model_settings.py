"""What a model's own settings file may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Coefficient = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of ``fluxperf.json``; None is what was not said."""

    size: Annotated[int, msgspec.Meta(ge=16, le=65_536, multiple_of=16)] | None = None
    steps: _Count | None = None
    guidance: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    max_sequence_length: _Count | None = None
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    teacache_coefficients: Annotated[tuple[_Coefficient, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None


def check(content: dict[str, Any]) -> dict[str, Any]:
    """What is said in ``content``; raises :class:`ValueError` with the place of what cannot be."""
    try:
        settings = msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}
