"""Comparisons whose children say anything."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from pytest_fluxperf.ab.conductor import Conductor
from pytest_fluxperf.ab.protocol import PROTOCOL, Collected, Described, Finished, Generated, Hello, Measured, Prepared
from pytest_fluxperf.ab.trial import Terms
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.report import load_document
from tools.campaign.mutate import encode, mutate
from tools.campaign.readers import SAMPLE
from tools.campaign.watch import LONGEST_S, Figures

_REPLAY = """
import os, socket, sys
connection = socket.socket(fileno=int(os.environ["FLUXPERF_AB_SOCKET"]))
heard = connection.makefile("rb")
for line in open(sys.argv[1], "rb"):
    connection.sendall(line)
    if not heard.readline():
        break
"""
_TIMEOUT_S = 3.0


def compare_hostile(folder: Path, random: Random, figures: Figures) -> None:
    """Compare two environments of which one or both say what is mutated; any error but one in one line is counted."""
    folder.mkdir(parents=True)
    (folder / "replay.py").write_text(_REPLAY)
    sides = {name: _environment(folder, name, random, hostile=random.random() < 0.7) for name in ("old", "new")}
    figures.tried["comparisons with hostile children"] += 1
    terms = Terms(old=sides["old"], new=sides["new"], arguments=(), folder=folder / "run", timeout_s=_TIMEOUT_S)
    begun = time.monotonic()
    try:
        Conductor(terms).run()
    except FluxPerfError:
        pass
    except Exception as error:
        figures.found("tracebacks", f"comparison: {type(error).__name__}: {str(error)[:200]}")
    if time.monotonic() - begun > 10 * LONGEST_S:  # it may wait for several answers
        figures.found("hangs", f"comparison: {time.monotonic() - begun:.0f} s")


def _environment(folder: Path, name: str, random: Random, *, hostile: bool) -> Path:
    """An interpreter that speaks the lines of a conversation, and nothing else."""
    lines = [msgspec.to_builtins(message) for message in _conversation()]
    if hostile:
        at = random.randrange(len(lines))
        lines[at] = mutate(lines[at], random)
        if random.random() < 0.3:
            random.shuffle(lines)
    (folder / f"{name}.lines").write_bytes(
        b"".join(encode(line, random if hostile else Random(1)).replace(b"\n", b"") + b"\n" for line in lines)
    )
    script = folder / f"{name}-python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{folder}/replay.py" "{folder}/{name}.lines"\n')
    script.chmod(0o755)
    return script


def _conversation() -> list[Any]:
    document = load_document(SAMPLE)
    result = msgspec.structs.replace(document.results[0], baseline=None)
    described = Described(recipe=result.recipe, reference=result.reference, workload=result.workload)
    policy = Policy()
    pairs = len(result.measurement.generations)
    return [
        Hello(protocol=PROTOCOL, plugin="0", python="3.11"),
        Collected(
            tests=(result.test,),
            described={result.test: described},
            environment=document.environment,
            lock="",
            gpu=document.gpu,
            hardware=document.hardware,
        ),
        Prepared(
            test=result.test,
            workload=result.workload.digest,
            generations=pairs,
            held_mib=1.0,
            free_mib=10_000.0,
            policy=policy,
        ),
        *(Generated(latency_s=made.latency_s) for made in result.measurement.generations),
        Measured(test=result.test, result=result, policy=policy, environment=document.environment),
        Finished(test=result.test, result=result, policy=policy, environment=document.environment),
    ]
