"""JSON Schemas of the files this project writes, generated from the records.

``python -m tools.schema docs/schema`` writes them; a test holds them in sync.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from pytest_fluxperf.baseline.codec import BaselineFile
from pytest_fluxperf.results import Record, RunDocument

SCHEMAS: dict[str, type[Record]] = {"baseline-1.json": BaselineFile, "results-3.json": RunDocument}
"""File name and the record it describes; the number is the file's ``format``."""


def schema_text(name: str) -> str:
    """The schema called ``name``, ready to be written."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(SCHEMAS[name])}
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(folder: str) -> None:
    """Write every schema into ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in SCHEMAS:
        (Path(folder) / name).write_text(schema_text(name))


if __name__ == "__main__":
    main(sys.argv[1])
