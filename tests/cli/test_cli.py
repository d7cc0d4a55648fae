from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import report_documents as documents

from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.cli import main
from pytest_fluxperf.report import write_document
from pytest_fluxperf.report.exports import FORMATS


@pytest.fixture
def recorded(tmp_path):
    def write(document, name):
        write_document(document, tmp_path / name)
        return str(tmp_path / name)

    return write


def session(document, name, factor=1.0):
    """A recorded session of the document's measurements, the first recipe slower by a factor."""
    results = []
    for index, result in enumerate(document.results):
        scale = 1.0 if index else factor
        made = tuple(
            msgspec.structs.replace(g, latency_s=g.latency_s * scale, wall_s=g.wall_s * scale)
            for g in result.measurement.generations
        )
        measurement = msgspec.structs.replace(result.measurement, generations=made)
        run = record(
            measurement, result.scores, session=name, environment=document.environment, time_utc=document.time_utc
        )
        results.append(msgspec.structs.replace(result, measurement=measurement, run=run))
    return msgspec.structs.replace(document, results=tuple(results), session=name)


def test_compare_exits_by_the_verdict(recorded, capsys):
    base = documents.passing()
    old = recorded(session(base, "old"), "old.json")
    assert main(["compare", old, recorded(session(base, "same"), "same.json")]) == 0
    assert main(["compare", old, recorded(session(base, "slow", 1.2), "slow.json")]) == 1
    assert "regressed" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "status"), [("cpu", 0), ("cuda", 1)])
def test_compare_reports_a_cpus_memory_without_judging_it(kind, status, recorded):
    base = session(documents.passing(), "old")
    base = msgspec.structs.replace(base, hardware=msgspec.structs.replace(base.hardware, kind=kind))
    heavier = [
        msgspec.structs.replace(r.measurement, peak_memory_mib=1.3 * r.measurement.peak_memory_mib)
        for r in base.results
    ]
    results = [msgspec.structs.replace(r, measurement=m) for r, m in zip(base.results, heavier, strict=True)]
    new = session(msgspec.structs.replace(base, results=tuple(results)), "new")
    assert main(["compare", recorded(base, "old.json"), recorded(new, "new.json")]) == status


def test_compare_that_judges_nothing_fails(recorded, capsys):
    base = session(documents.passing(), "old")
    elsewhere = msgspec.structs.replace(base, hardware=msgspec.structs.replace(base.hardware, name="NVIDIA L4"))
    assert main(["compare", recorded(base, "old.json"), recorded(elsewhere, "new.json")]) == 1
    assert "gated nothing, so it fails" in capsys.readouterr().out


def without(document, index):
    return msgspec.structs.replace(document, results=document.results[:index] + document.results[index + 1 :])


def test_strict_compare_fails_what_is_undecided_or_lacking(recorded, capsys):
    base = session(documents.passing(), "old")
    tight = ["--max-slowdown", "0.01"]  # at which one stored session decides nothing
    loose = ["--max-slowdown", "0.5"]  # at which nothing stays undecided
    old, new = recorded(base, "old.json"), recorded(session(base, "new"), "new.json")
    fewer = recorded(without(session(base, "fewer"), 3), "fewer.json")
    assert main(["compare", old, new, *tight]) == 0
    assert " inconclusive" in capsys.readouterr().out
    assert main(["compare", old, new, "--strict", *tight]) == 1
    assert main(["compare", old, new, "--strict", *loose]) == 0
    assert main(["compare", old, fewer, *loose]) == 0
    assert main(["compare", old, fewer, "--strict", *loose]) == 1


def test_compare_advises_only_what_can_be_done(recorded, capsys):
    base = session(documents.passing(), "old")
    old, new = recorded(without(base, 0), "old.json"), recorded(session(base, "new", 0.7), "new.json")
    assert main(["compare", old, new, "--max-slowdown", "0.01"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 16 has no baseline: bf16: the first session did not measure it." in printed
    assert "inconclusive: one recorded session (R = 1) does not show how much sessions differ;" in printed
    assert "--fluxperf-" not in printed
    assert "repeat in another session" not in printed


def test_compare_refuses_a_damaged_session(recorded, capsys):
    base = session(documents.passing(), "old")
    first = base.results[0]
    run = msgspec.structs.replace(first.run, samples=first.run.samples[1:])
    damaged = msgspec.structs.replace(base, results=(msgspec.structs.replace(first, run=run), *base.results[1:]))
    assert main(["compare", recorded(damaged, "old.json"), recorded(base, "new.json")]) == 4
    error = capsys.readouterr().err
    assert first.test in error
    assert error.count("\n") == 1


CPU_NOTE = "on a CPU this is for fluxperf ab only: the suite itself judges the speed-up over the reference there"


@pytest.mark.parametrize(
    ("tau", "processes", "last"),
    [
        (
            0.001,
            4,
            [
                "this machine supports a tolerance of 2% (fluxperf_max_slowdown = 0.02)",
                "were τ at the upper end of its range, 0.15%, it would support 2%",
                CPU_NOTE,
            ],
        ),
        (
            0.02,
            4,
            [
                "this machine supports a tolerance of 3% (fluxperf_max_slowdown = 0.03)",
                "were τ at the upper end of its range, 1.96%, it would support 10%",
                CPU_NOTE,
            ],
        ),
        (
            0.001,
            3,
            [
                "this machine supports a tolerance of 2% (fluxperf_max_slowdown = 0.02)",
                "but 3 processes hardly know τ; more processes needed: --processes 4",
                CPU_NOTE,
            ],
        ),
        (0.5, 4, ["", "no tolerance up to 17% is supported: too noisy for absolute latency"]),
    ],
)
def test_gate_check_says_which_tolerance_this_machine_supports(tau, processes, last, capsys, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    made = tau * rng.standard_normal((processes, 1)) + 0.001 * rng.standard_normal((processes, 8))
    monkeypatch.setattr("pytest_fluxperf.ab.selfcheck.measure_processes", lambda *_: {"a": made})
    assert main(["gate-check", "--processes", str(processes), "--reports", str(tmp_path), "--", "x.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-len(last) :] == last
    assert any(line.startswith("between processes τ") and f"({processes} processes, 1 test; " in line for line in lines)


def test_report_renders_again_and_merges_machines(recorded, tmp_path, capsys):
    one = documents.passing(tmp_path)
    two = msgspec.structs.replace(one, gpu="h200", session="other")
    files = [recorded(one, "one.json"), recorded(two, "two.json")]
    assert main(["report", *files, "--output", str(tmp_path / "both.html")]) == 0
    html = (tmp_path / "both.html").read_text()
    assert "h200" in html
    assert main(["report", files[0], "--output", str(tmp_path / "one.md")]) == 0
    assert (tmp_path / "one.md").read_text().startswith("## ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "nothing.json", "nothing.json"], "cannot read nothing.json"),
        (["report", "nothing.json", "--output", "x.html"], "cannot read nothing.json"),
        (["ab", "--old", "nowhere", "--new", "nowhere", "--", "x.py"], "nowhere is neither a Python interpreter nor"),
        (["ab", "--old", ".", "--new", ".", "--", "--fluxperf-update=all"], "--fluxperf-update has no place in"),
        (["gate-check", "--processes", "1", "--", "x.py"], "needs two or more"),
        (["gate-check", "--", "x.py", "--fluxperf-update=all"], "--fluxperf-update has no place in"),
        (["gate-check", "--reports", __file__, "--", "x.py"], "cannot be written (Not a directory); choose another"),
        (["calibrate", "teacache", "--model", "nowhere"], "no such folder and no known name"),
        (["calibrate", "teacache", "--steps", "0"], "--steps: at least 2"),
    ],
)
def test_a_mistake_is_one_line_and_exit_4(arguments, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 4
    error = capsys.readouterr().err
    assert error.startswith("fluxperf: ")
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--output", "a.pdf"], "must end in .html, .md, .xml, .csv"),
        (["--output", "a.json"], "its format must be named by --format: html, md, junit, csv, bencher"),
        (["--format", "pdf"], "there is no format 'pdf'"),
        (["--format", "html"], "an HTML report needs a file"),
        (["--output", "no/such/folder/a.md"], "cannot write"),
    ],
)
def test_an_unknown_output_is_refused(recorded, tmp_path, capsys, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert main(["report", recorded(documents.passing(), "a.json"), *arguments]) == 4
    assert complaint in capsys.readouterr().err


def test_the_help_names_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in FORMATS)


def test_text_formats_go_to_standard_output(recorded, capsys):
    file = recorded(documents.failing(), "a.json")
    assert main(["report", file, "--artifact-url", "https://ci.example/7", "--max-bytes", "9000"]) == 0
    text = capsys.readouterr().out
    assert "](https://ci.example/7)" in text
    assert len(text.encode()) <= 9000
    assert main(["report", file, "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("machine,")


def test_pictures_are_found_in_the_folder_of_each_run(tmp_path):
    folders = []
    for gpu, make in (("h100", documents.passing), ("l40s", documents.failing)):
        folder = tmp_path / gpu
        folder.mkdir()
        write_document(msgspec.structs.replace(make(folder), gpu=gpu), folder / "results.json")
        folders.append(str(folder))
    page = tmp_path / "pages" / "both.html"
    page.parent.mkdir()
    assert main(["report", *folders, "--output", str(page)]) == 0
    html = page.read_text()
    assert ">missing<" not in html
    links = set(re.findall(r'href="(\.\./[^"]+\.png)"', html))
    assert {link.split("/")[1] for link in links} == {"h100", "l40s"}
    assert all((page.parent / link).is_file() for link in links)


def test_recipes_says_what_is_missing(capsys):
    assert main(["recipes", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "fbcache" in text
    assert "no: needs a CUDA GPU" in text


@pytest.mark.parametrize("command", [["recipes"], ["calibrate", "teacache"]], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("device", "gpus", "complaint"),
    [
        ("foo", 0, "no such device; name cpu, cuda or cuda:N"),
        ("cuda:", 1, "no such device; name cpu, cuda or cuda:N"),
        ("", 1, "no such device; name cpu, cuda or cuda:N"),
        ("cuda", 0, "torch sees no CUDA GPU here; name another, or cpu"),
        ("cuda:2", 2, "torch sees cuda:0 to cuda:1 here; name another, or cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(command, device, gpus, complaint, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert main([*command, "--device", device]) == 4
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"fluxperf: --device {device}: {complaint}\n")


@pytest.mark.parametrize(
    ("device", "gpus", "chosen"), [(None, 0, "cpu"), (None, 1, "cuda"), ("cuda:1", 2, "cuda:1"), ("cpu", 2, "cpu")]
)
def test_a_device_that_is_there_is_taken(device, gpus, chosen, monkeypatch):
    import torch

    from pytest_fluxperf.pipelines import pool

    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(pool, "survey", lambda device: asked.append(device) or [])
    assert main(["recipes", *(["--device", device] if device else [])]) == 0
    assert asked == [chosen]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_the_command_quietly(unbuffered):
    """As of ``fluxperf recipes | head -n 0``, whether it fails at the first line or at the last flush."""
    program = "import sys; from pytest_fluxperf.cli import main; sys.exit(main())"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program, "recipes", "--device", "cpu"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "OMP_NUM_THREADS": "1"},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_not_taken_for_that(capsys, monkeypatch):
    from pytest_fluxperf.pipelines import pool

    def broken(*_):
        raise BrokenPipeError("a process is gone")

    monkeypatch.setattr(pool, "survey", broken)
    with pytest.raises(BrokenPipeError, match="a process is gone"):
        main(["recipes"])


def test_the_help_loads_nothing_heavy():
    program = (
        "import sys\nfrom pytest_fluxperf.cli import make_parser\nmake_parser().format_help()\n"
        "print([name for name in ('torch', 'numpy', 'jinja2', 'matplotlib', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_comparison_records_the_command_that_was_run_not_the_process(monkeypatch, tmp_path):
    from pytest_fluxperf.cli import ab

    requests = []
    monkeypatch.setattr(ab, "ab", lambda request: requests.append(request) or 0)
    monkeypatch.setattr(sys, "argv", ["a-notebook", "--of", "someone"])
    words = ["ab", "--old", "a", "--new", "b", "--", "perf_tests", "-k", "tiny"]
    assert main(words) == 0
    assert requests[0].command == ("fluxperf", *words)
    assert requests[0].arguments == ("perf_tests", "-k", "tiny")


def test_pytest_arguments_belong_to_comparisons_only(capsys):
    with pytest.raises(SystemExit):
        main(["recipes", "--", "perf_tests"])
    assert "only ab and gate-check" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ab", "--old", ".", "--new", "."], ["gate-check"]])
@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf", "soon"])
def test_a_time_limit_is_a_positive_number_of_seconds(command, seconds, capsys):
    with pytest.raises(SystemExit):
        main([*command, f"--timeout={seconds}", "--", "x.py"])
    assert f"argument --timeout: must be a positive number of seconds, not '{seconds}'" in capsys.readouterr().err
