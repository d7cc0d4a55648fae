"""A child of an A/B comparison in a few lines of the standard library: it speaks the protocol and measures nothing.

Run as ``python -IS fakechild.py SCENARIO.json``. The wire format is written out here, so a change of it is noticed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

scenario = json.loads(Path(sys.argv[1]).read_text())
socket_ = socket.socket(fileno=int(os.environ["FLUXPERF_AB_SOCKET"]))
reader = socket_.makefile("r")
name = os.environ["FLUXPERF_AB_RUN"]
folder = Path(os.environ["FLUXPERF_AB_REPORTS"])
diary = Path(scenario["diary"])


SHORT = "fluxperf: broken: the device's memory does not suffice in warm-up: it needed 2.50 GiB more"


def note(text):
    with diary.open("a") as file:
        file.write(f"{name} {text}\n")


def say(what, **values):
    socket_.sendall(json.dumps({"say": what, **values}).encode() + b"\n")


def hear():
    line = reader.readline()
    if not line:
        sys.exit(0)
    message = json.loads(line)
    if message["say"] == "stop":
        sys.exit(0)
    return message


def machine(latency, noise):
    """A machine that slows steadily, seen by both sides: every generation makes a line in the diary."""
    done = sum(" made" in line for line in diary.read_text().splitlines()) if diary.exists() else 0
    wobble = noise * (((done * 7919) % 13) / 6 - 1)
    return latency * (1 + scenario.get("drift", 0.0) * done / scenario.get("total", 16)) * (1 + wobble)


def misbehave(test, at):
    if test.get("at") != at:
        return
    if test["does"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if test["does"] == "exit":
        print("ERROR: out of luck", flush=True)
        sys.exit(3)
    if test["does"] == "hang":
        child = subprocess.Popen(["sleep", "600"])  # what it started has to end with it
        (folder / f"{name}.pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if test["does"] == "say":  # anything, in a place where it is not due
        say(**test["said"])
        time.sleep(600)
    if test["does"] == "flood":
        print("x" * 2**21, flush=True)
        time.sleep(600)
    if test["does"] == "shout":  # a line without an end
        socket_.sendall(b"x" * 2**21)
        time.sleep(600)
    if test["does"] == "garbage":
        socket_.sendall(b"Loading weights: 100%\n")
        time.sleep(600)


note("started")
if scenario.get("dies_in_block") == name:
    sys.exit(3)
print("Loading pipeline components...: 100%\r\x00\xff garbage on stdout", flush=True)
misbehave(scenario, "hello")
say("hello", protocol=scenario.get("protocol", 1), plugin=scenario.get("plugin", "0.1.0"), python="3.11", later="added")
hear()
say(
    "collected",
    tests=list(scenario["tests"]),
    refused=scenario.get("refused", {}),
    metrics=scenario.get("metrics", ["ssim"]),
    profile=scenario.get("profile", False),
    **{"gpu": "cpu", "hardware": {"kind": "cpu", "name": "a CPU"}, **scenario.get("collected", {})},
)
plan = hear()
assert plan["say"] == "plan", plan
note("plan " + ",".join(plan["tests"]))
for test in plan["tests"]:
    told = scenario["tests"][test]
    if hear()["say"] == "skip":
        say("finished", test=test, skipped="told to")
        continue
    if "skipped" in told:
        say("finished", test=test, skipped=told["skipped"])
        continue
    note(f"{test} warm")
    misbehave(told, "warm")
    beside_another = not name.endswith("alone")
    if beside_another and told.get("short") == "warm":
        say("finished", test=test, failed=SHORT, out_of_memory=True)
        continue
    total = plan["least_pairs"]
    memory = {"held_mib": told.get("held", 100.0), "free_mib": told.get("free", 1e6)}
    policy = {"max_slowdown": 0.02, "unheard_of": True, **told.get("policy", {})}
    say("prepared", test=test, workload="w", generations=total, policy=policy, **memory)
    seconds = []
    for k in range(total):
        if hear()["say"] == "skip":
            note(f"{test} left")
            say("finished", test=test, skipped="told to")
            break
        if beside_another and told.get("short") == k:
            say("finished", test=test, failed=SHORT, out_of_memory=True)
            break
        misbehave(told, k)
        seconds.append(machine(told["latency"], told.get("noise", 0.001)))
        note(f"{test} made")
        say("generated", latency_s=seconds[-1])
    else:
        heard = hear()
        if heard["say"] == "skip":
            say("finished", test=test, skipped="told to")
            continue
        result = json.loads(json.dumps(scenario["result"]))
        result["test"] = test
        result["measurement"]["generations"] = [{"latency_s": s, "wall_s": s, "unheard_of": 1} for s in seconds]
        result["run"]["samples"] = [{"latency_s": s, "wall_s": s} for s in seconds]
        result["run"]["session"] = name
        if plan["quality"] and test not in plan["compared"]:
            note(f"{test} compared")
            result["reference"] = "baseline"
            if "picture" in told:  # path, and what a result says of it
                path, picture = told["picture"]
                (folder / name / "images").mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name / "images")
                for generation in result["measurement"]["generations"]:
                    generation["picture"] = picture
        result["run"] |= told.get("run", {})
        result["measurement"] |= told.get("measurement", {})
        if told.get("problem"):
            result["measurement"]["problems"] = [told["problem"]]
            result["run"] = None
        environment = {"python": "3.11", "platform": "Linux", "packages": scenario["packages"]}
        known = {"test": test, "result": result, "policy": policy, "environment": environment}
        unprofiled = None
        if heard.get("profile") and "kernels" in told:  # a version that cannot profile ignores what it is asked
            say("measured", **known)
            assert hear()["say"] == "go"
            note(f"{test} profiled")
            misbehave(told, "profile")
            unprofiled = told.get("unprofiled")
            if unprofiled is None:
                rows = [{"family": k, "calls": 1, "time_s": s} for k, s in told["kernels"].items()]
                busy = sum(told["kernels"].values())
                trace = f"traces/{test}-first.json.gz"
                (folder / name / trace).parent.mkdir(parents=True, exist_ok=True)
                (folder / name / trace).write_text(name)
                table = {"device": "cpu", "kernels": rows, "busy_s": busy, "latency_s": seconds[0], "traces": [trace]}
                result["measurement"]["kernels"] = table
                result["run"]["kernels"] = {k: v for k, v in table.items() if k != "traces"}
        say("finished", **known, unprofiled=unprofiled, held_mib=100.0)
    note(f"{test} over")
