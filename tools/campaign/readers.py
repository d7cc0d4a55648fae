"""Every reader of files, with real files to mutate."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from pytest_fluxperf.ab.protocol import Channel, Finished, Hello, Prepared
from pytest_fluxperf.baseline import codec, published
from pytest_fluxperf.bench import prompts
from pytest_fluxperf.cli import main
from pytest_fluxperf.cli.comment import Repository, post
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.pipelines.tiny import MODEL_DIR
from pytest_fluxperf.quality import images
from pytest_fluxperf.recipe import parse
from pytest_fluxperf.report import journal, load_document
from pytest_fluxperf.results import Baseline
from tools.campaign.mutate import MARK, damage, encode, mutate

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "reports" / "sample"

Read = Callable[[Path, Random], str]
"""Puts a mutated file into an empty folder and reads it; what it says to people."""

_FORMS = ("report.md", "report.html", "report.xml", "report.csv", "bencher", "github-action-benchmark", "annotations")
_SLOWER = 3.0
"""No tolerance that a test may have lets this pass."""


@dataclass(frozen=True)
class Reader:
    """A reader; of all mutations it gets ``share``."""

    name: str
    read: Read
    share: float
    least: int = 1
    """Mutations that it gets at least; of fewer it gets none, where it has to load a model for them."""
    begin: Callable[[], object] = lambda: None
    """What is loaded before the first, by libraries that keep caches where they like."""
    judges: bool = False
    """What it reads is a sure regression, so that it must not come back green."""


@cache
def _baselines() -> Sequence[bytes]:
    found = sorted((ROOT / "baselines").rglob("*.json"), key=lambda path: path.stat().st_size)
    return [path.read_bytes() for path in found if "published" not in path.parts][:40]


@cache
def _document() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLE / "results.json").read_bytes())
    return content


def read_baseline(folder: Path, random: Random) -> str:
    """A stored baseline whose digest is right again, so that what is behind it is read too."""
    content = mutate(json.loads(random.choice(_baselines())), random)
    if isinstance(content, dict) and random.random() < 0.8:
        content.pop("sha256", None)
        with suppress(msgspec.ValidationError, RecursionError):
            stored = msgspec.to_builtins(msgspec.convert(content, Baseline))
            content["sha256"] = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
    raw = encode(content, random)
    codec.encode(codec.decode(raw, str(folder / "a.json")))
    return ""


def read_document(folder: Path, random: Random) -> str:
    """A document, rendered in one of all forms."""
    (folder / "results.json").write_bytes(encode(mutate(_document(), random), random))
    return _rendered(folder, random)


def read_journal(folder: Path, random: Random) -> str:
    """The journal of a run that was killed."""
    content = _document()
    start = {**content, "results": [], "skipped": []}
    entries = [
        {"outcome": {**result, "kind": "result"}, "collected": 9, "duration_s": 1.0} for result in content["results"]
    ]
    lines = [start, *entries]
    at = random.randrange(len(lines))
    raw = [encode(mutate(line, random) if i == at else line, Random(1)) for i, line in enumerate(lines)]
    whole = b"".join(line + b"\n" for line in raw)
    (folder / journal.NAME).write_bytes(damage(whole, random) if random.random() < 0.3 else whole)
    return _rendered(folder, random)


def _rendered(folder: Path, random: Random) -> str:
    form = random.choice(_FORMS)
    arguments = ["report", str(folder)]
    arguments += ["--output", str(folder / form)] if "." in form else ["--format", form]
    status = main(arguments)
    if status == 4:
        raise FluxPerfError("refused")
    return (folder / form).read_text() if "." in form else ""


def read_comparison(folder: Path, random: Random) -> str:
    """A session that is three times slower than another, and says anything else of itself: it must fail."""
    (folder / "old.json").write_text(json.dumps(_document()))
    slow = copy.deepcopy(_document())
    for result in slow["results"]:
        for made in (*result["measurement"]["generations"], *result["run"]["samples"]):
            made |= {
                name: value * _SLOWER for name, value in made.items() if isinstance(value, float) and name[-2:] == "_s"
            }
    kept = ("measurement", "run", "judgement")
    (folder / "new.json").write_bytes(encode(mutate(slow, random, lambda key: key not in kept), random))
    if main(["compare", str(folder / "old.json"), str(folder / "new.json"), "--strict"]) == 0:
        return "green"
    raise FluxPerfError("refused, or failed")


def read_published(folder: Path, random: Random) -> str:
    """Figures from the literature."""
    seeds = sorted((ROOT / "baselines" / "published").glob("*.json"))
    (folder / "published").mkdir()
    (folder / "published" / "a.json").write_bytes(
        encode(mutate(json.loads(random.choice(seeds).read_bytes()), random), random)
    )
    published.load(folder)
    return ""


def read_prompts(folder: Path, random: Random) -> str:
    """Prompts of one's own, as text or as JSON lines."""
    entries: list[Any] = [{"prompt": "a red fox", "seed": 3}, {"prompt": "two herons", "seeds": [1, 2]}, "a boat"]
    lines = [encode(line, random) for line in mutate([*entries, *entries], random)]
    path = folder / random.choice(("a.jsonl", "a.txt"))
    path.write_bytes(b"\n".join(lines))
    prompts.load(str(path), (0, 1), random.choice((None, 1, 100)))
    return ""


def read_model(folder: Path, random: Random) -> str:
    """A model's folder: its settings, its index, the header of its weights, its transformer's configuration."""
    model = folder / "model"
    shutil.copytree(MODEL_DIR, model, copy_function=lambda source, target: Path(target).symlink_to(source))
    name = random.choice(("fluxperf.json", "model_index.json", "transformer/config.json", "weights"))
    if name == "weights":
        _mutate_weights(model / "transformer" / "diffusion_pytorch_model.safetensors", random)
    else:
        content = json.loads((model / name).read_bytes())
        (model / name).unlink()
        (model / name).write_bytes(encode(mutate(content, random), random))
    resolve(str(model))
    check_model_folder(model)
    return ""


def _mutate_weights(path: Path, random: Random) -> None:
    """Mutate the header of a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = encode(mutate(json.loads(raw[8 : 8 + length]), random), random)
    told = random.choice((len(header), len(header), len(header), 0, 2**63, len(header) + 9))
    path.unlink()
    path.write_bytes(told.to_bytes(8, "little") + header + raw[8 + length :][:100_000])


@cache
def _pool() -> Pool:
    return Pool(resolve("tiny"), "cpu")


def _lora() -> tuple[dict[str, Any], bytes]:
    """Header and weights of an adapter of two layers of the embedded model."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    raw = b""
    for layer, (outputs, inputs) in _layers().items():
        for name, shape in (("A", (2, inputs)), ("B", (outputs, 2))):
            size = 4 * shape[0] * shape[1]
            offsets = [len(raw), len(raw) + size]
            header[f"transformer.{layer}.lora_{name}.weight"] = {
                "dtype": "F32", "shape": list(shape), "data_offsets": offsets,
            }  # fmt: skip
            raw += b"\0" * size
    return header, raw


@cache
def _layers() -> dict[str, tuple[int, int]]:
    names = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp")
    prepared = _pool().acquire(parse("fp32"), steps=2)
    found = {name: prepared.pipe.transformer.get_submodule(name).weight.shape for name in names}
    prepared.release()
    return {name: (shape[0], shape[1]) for name, shape in found.items()}


def load_lora() -> None:
    """Load the embedded model and fuse the adapter as it is, which has to succeed."""
    with tempfile.TemporaryDirectory() as folder:
        content, weights = _lora()
        _fuse(Path(folder) / "a.safetensors", json.dumps(content).encode(), weights)


def _fuse(path: Path, header: bytes, weights: bytes, told: int | None = None) -> None:
    path.write_bytes((len(header) if told is None else told).to_bytes(8, "little") + header + weights)
    _pool().acquire(parse(f"fp32+lora:{path}"), steps=2).release()


def read_lora(folder: Path, random: Random) -> str:
    """LoRA weights with a mutated header, fused into the embedded model."""
    content, weights = _lora()
    header = encode(mutate(content, random), random)
    _fuse(folder / "a.safetensors", header, weights, random.choice((None, None, None, 2**63)))
    return ""


def read_picture(folder: Path, random: Random) -> str:
    """A stored picture."""
    source = next(path for path in sorted((ROOT / "baselines").rglob("*.png")))
    raw = bytearray(source.read_bytes())
    for _ in range(random.randint(1, 8)):
        raw[random.randrange(min(len(raw), random.choice((40, 10**6))))] = random.randrange(256)
    (folder / "a.png").write_bytes(damage(bytes(raw), random) if random.random() < 0.3 else bytes(raw))
    images.load(folder / "a.png")
    return ""


def read_answer(folder: Path, random: Random) -> str:
    """What a server answers to who wants to comment."""
    comment = {"id": 1, "body": "<!-- fluxperf: a -->", "user": {"type": "Bot"}, "html_url": "https://example.test/1"}
    (folder / "a.md").write_text("text")
    answer = mutate([comment, {**comment, "user": None}], random)

    class Fake(Repository):
        def call(self, method: str, path: str, content: object = None) -> tuple[Any, str | None]:  # noqa: ARG002
            return (answer if method == "GET" else comment), None

    post(folder / "a.md", "a", 1, Fake("api", "a/b", "token"))
    return ""


@cache
def _messages() -> Sequence[Any]:
    results = load_document(SAMPLE).results
    said = [
        Hello(protocol=1, plugin="0", python="3"),
        Prepared(test="a", workload="w", generations=8, held_mib=1.0, free_mib=2.0),
        *(Finished(test=result.test, result=result) for result in results[:2]),
    ]
    return [msgspec.to_builtins(message) for message in said]


def read_message(folder: Path, random: Random) -> str:  # noqa: ARG001
    """What a child of a comparison says."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(True)
        raw = encode(mutate(random.choice(_messages()), random), random) + b"\n"
        theirs.settimeout(5.0)

        def talk() -> None:
            try:
                theirs.sendall(raw)
                theirs.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        Channel(ours).receive(5.0, lambda: None)
        thread.join()
    return ""


READERS = (
    Reader("baselines", read_baseline, 0.24),
    Reader("documents, rendered", read_document, 0.22),
    Reader("journals, rendered", read_journal, 0.06),
    Reader("sessions three times slower, compared", read_comparison, 0.12, judges=True),
    Reader("published figures", read_published, 0.08),
    Reader("prompts", read_prompts, 0.08),
    Reader("models: settings, index, headers of weights", read_model, 0.08),
    Reader("LoRA files", read_lora, 0.02, least=10, begin=load_lora),
    Reader("pictures", read_picture, 0.04),
    Reader("answers of a server", read_answer, 0.03),
    Reader("messages of a child", read_message, 0.03),
)
_MARKUP = re.compile(rf"<script>[^<]*{MARK}|<img src=x onerror|href=[\"']?javascript:")
_CONTROL = re.compile(rf"\x1b|[\u202a-\u202e\u2066-\u2069]|^::\w+::{MARK}", re.MULTILINE)


def injected(written: str, printed: str) -> str | None:
    """What of a payload came as it was, as markup into a file or as control characters and commands anywhere."""
    for text, pattern in ((written, _MARKUP), (written, _CONTROL), (printed, _CONTROL)):
        if found := pattern.search(text):
            return repr(text[max(0, found.start() - 60) : found.end() + 20])
    return None
