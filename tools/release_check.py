"""Everything that publishing a release does, up to the upload.

python tools/release_check.py [--tag v0.1.0] [--packages PYTHON] [--output dist]

Checks that tag, version and changelog agree; builds the sdist, and the wheel from it; checks both as the package index
would; then installs each into an empty environment and gates a generation with it as a user would, from a folder that
holds nothing of this repository. The packages that pytest-fluxperf needs come from the environment of ``--packages``,
and its metadata must agree with them. `make release-check` calls this, here and in the workflow that publishes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST_MIB = 100
"""What the index takes for a file unless asked for more: https://docs.pypi.org/project-management/storage-limits/."""
NEEDED = ("py.typed", "plugin", "pipelines/tiny/model/model_index.json")
"""In the package, each a file, a module or a folder."""

TEST = """
import pytest


@pytest.mark.fluxperf(steps=2, size=64, samples=2, max_slowdown=1.0)
@pytest.mark.parametrize("flux", ["fp32", "fp32+fbcache:0.3"], indirect=True)
def test_smoke(flux, flux_inputs):
    return flux(**flux_inputs).images
"""


class Fault(Exception):
    """Why this must not be published."""


def check_version(version: str, changelog: str, tag: str | None) -> None:
    """Raise Fault unless the tag names the version and the changelog's newest section is its, with a date."""
    if tag is not None and tag != f"v{version}":
        raise Fault(f"the tag is {tag}, the version in pyproject.toml {version}: they must be v{version} and {version}")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    if sections and sections[0].startswith("Unreleased") and sections.pop(0).partition("\n")[2].strip():
        raise Fault("CHANGELOG.md: what stands under Unreleased belongs to a version")
    heading = sections[0].partition("\n")[0] if sections else ""
    if not re.fullmatch(rf"\[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d", heading):
        raise Fault(f"CHANGELOG.md: the newest section must be '## {version} - YYYY-MM-DD', not '## {heading}'")


def check_wheel(path: Path) -> None:
    """Raise Fault unless the wheel holds the package, complete, and nothing else."""
    names = zipfile.ZipFile(path).namelist()
    foreign = {name for name in names if not re.match(r"pytest_fluxperf(-[^/]+\.dist-info)?/", name)}
    if foreign:
        raise Fault(f"{path.name}: holds {min(foreign)}")
    for needed in NEEDED:
        pattern = rf"pytest_fluxperf/{re.escape(needed)}(/.*|\.py)?"
        if not any(re.fullmatch(pattern, name) for name in names):
            raise Fault(f"{path.name}: lacks {needed}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        raise Fault(f"{path.name}: lacks the license")


def check_size(path: Path) -> None:
    """Raise Fault if the index would not take a file of that size."""
    size_mib = path.stat().st_size / 1024**2
    print(f"{path.name}: {size_mib:.1f} MiB", flush=True)
    if size_mib > LARGEST_MIB:
        raise Fault(f"{path.name}: has {size_mib:.0f} MiB, the index takes {LARGEST_MIB}")


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """The output of a command, shown too; Fault if it fails. It sees none of this repository's settings."""
    print("$", *command, flush=True)
    settings = {**os.environ, "PYTHONPATH": "", "PYTEST_ADDOPTS": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise Fault(f"{Path(command[0]).name} ended with status {done.returncode}")
    return done.stdout


def check_requirements(python: Path) -> None:
    """Raise Fault unless the environment has what pytest-fluxperf's metadata asks for; other packages' are not ours."""
    settings = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-m", "pip", "--python", str(python), "check"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    if ours := [line for line in done.stdout.splitlines() if line.startswith("pytest-fluxperf ")]:
        raise Fault(ours[0])


def build(output: Path) -> list[Path]:
    """The sdist, and the wheel built from it, in ``output``."""
    shutil.rmtree(output, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, ROOT)
    archives = sorted(output.iterdir())
    if [path.suffix for path in archives] != [".whl", ".gz"]:
        raise Fault(f"built {[path.name for path in archives]} instead of a wheel and an sdist")
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    return archives


def environment(folder: Path, packages: Path) -> Path:
    """A new environment's interpreter; it sees another's packages, but none that is installed there for editing."""
    run(packages, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    shared, place = run(packages, "-c", ask).strip(), run(python, "-c", ask).strip()
    Path(place, "shared.pth").write_text(f"{shared}\n")
    return python


def smoke_test(archive: Path, version: str, packages: Path) -> None:
    """Install ``archive`` into an empty environment and use it; Fault if anything of that goes wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(folder / "environment", packages)
        # Anew, whatever the shared packages hold, and from no wheel that an earlier sdist left in pip's cache.
        how = ("--force-reinstall", "--no-cache-dir", "--no-index", "--no-deps", "--no-build-isolation")
        run(sys.executable, "-m", "pip", "--python", python, "install", *how, archive)
        check_requirements(python)
        ask = "import importlib.metadata as m, pytest_fluxperf as p; print(m.version('pytest-fluxperf'), p.__file__)"
        installed, _, place = run(python, "-c", ask, folder=folder).strip().partition(" ")
        if installed != version or not Path(place).is_relative_to(folder):
            raise Fault(f"{archive.name}: version {installed} at {place} was imported")
        work = folder / "work"
        work.mkdir()
        (work / "test_smoke.py").write_text(TEST)
        command = (python, "-m", "pytest", "test_smoke.py", "--gpu", "cpu")
        run(*command, "--fluxperf-update", folder=work)
        if "gated 2 of 2" not in run(*command, folder=work):
            raise Fault(f"{archive.name}: the second run gated less than two tests")
        newest = max((work / "reports").glob("*/report.html"), key=lambda path: path.stat().st_mtime)
        if "gated 2 of 2" not in run(python.parent / "fluxperf", "report", newest.parent, folder=work):
            raise Fault(f"{archive.name}: fluxperf report says something else than the run")


def main() -> int:
    """0 when this may be published, else 1 and the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", default=os.environ.get("TAG") or None, help="tag to be published (default: $TAG)")
    parser.add_argument("--packages", type=Path, default=Path(sys.executable), help="Python with the needed packages")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        check_version(version, (ROOT / "CHANGELOG.md").read_text(), options.tag)
        archives = build(options.output.absolute())
        check_wheel(archives[0])
        for archive in archives:
            check_size(archive)
            smoke_test(archive, version, options.packages.absolute())
    except Fault as fault:
        print(f"not fit to be published: {fault}", file=sys.stderr)
        return 1
    print(f"{version} may be published: {', '.join(path.name for path in archives)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
