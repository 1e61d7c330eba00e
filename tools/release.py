"""Build a release, and try it the way a stranger would.

    python tools/release.py build              dist/: sdist, and the wheel made from that sdist
    python tools/release.py check              each of the two in a fresh environment, away from the source tree

``check`` installs under the pins of ``requirements/``, asks ``pip check``, runs the main job in an empty folder with
the network switched off for models, and looks for what the README promises. Beside the archives it leaves the bill of
materials of that environment (``sbom.cdx.json``, CycloneDX) and the licences in it (``licences.md``).
``make release`` does both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import bootstrap

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
#: What a run promises, below its trial folder.
PROMISED = (
    "report.html",
    "save/retrieved/ATTRIBUTION.md",
    "save/adapter/*.safetensors",
    "save/it*-test.mp4",
    "save/it*-export/model.glb",
    "configs/parsed.yaml",
    "cmd.txt",
)
#: Never in an archive: what a build or a run leaves, and what belongs to a machine.
STRAY = re.compile(
    r"(^|/)(__pycache__|outputs|\.venv|\.git|\.pytest_cache|\.mypy_cache|\.ruff_cache)(/|$)|\.py[co]$|\.nb[ic]$"
)
#: Licences that would bind what is built on the base install; LGPL and MPL do not.
BINDING = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
LESSER = re.compile(r"LGPL|Lesser", re.IGNORECASE)


class ReleaseError(Exception):
    """The release is not fit; the message says why."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command.

    Raises:
        ReleaseError: it failed; with the end of what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise ReleaseError(f"this failed with status {done.returncode}: {' '.join(words)}\n{said}")
    return done.stdout


# ------------------------------------------------------------------ build
def build(out: Path) -> tuple[Path, Path]:
    """Make the sdist, and the wheel out of it; returns both, checked for stray files."""
    shutil.rmtree(out, ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", out, ROOT])
    archives = archives_in(out)
    for archive in archives:
        if stray := [name for name in names_in(archive) if STRAY.search(name) or name.startswith(("/", ".."))]:
            raise ReleaseError(f"{archive.name} holds files that belong to no release: {stray[:10]}")
        bootstrap.say(f"{archive.name}: {len(names_in(archive))} files, {archive.stat().st_size / 2**20:.1f} MiB")
    return archives


def archives_in(out: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of a folder, one each.

    Raises:
        ReleaseError: one is missing, or there are several.
    """
    found = [sorted(out.glob(pattern)) for pattern in ("*.whl", "*.tar.gz")]
    if [len(paths) for paths in found] != [1, 1]:
        raise ReleaseError(f"{out} should hold one wheel and one sdist (got {[p.name for ps in found for p in ps]})")
    return found[0][0], found[1][0]


def names_in(archive: Path) -> list[str]:
    """Of the files in a wheel or an sdist."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            return file.namelist()
    with tarfile.open(archive) as file:
        return [member.name for member in file.getmembers() if member.isfile()]


# ------------------------------------------------------------------ check
def install(archive: Path, venv: Path) -> Path:
    """A fresh environment with the archive in it; returns its Python."""
    bootstrap.make_venv(venv)
    python = bootstrap.venv_python(venv)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    run(list(bootstrap.torch_command(pip, "cpu", bootstrap.cpu_pin(ROOT))))
    torch = "torch==" + bootstrap.installed_torch(venv)
    run([*pip, "install", "-c", CONSTRAINTS, archive, torch])
    run([*pip, "check"])
    return python


def main_job(python: Path, folder: Path, words: list[str]) -> Path:
    """Run the README's main job in an empty folder; returns the trial folder, checked for what is promised."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"HF_HUB_OFFLINE": "1"}
    where = run([python, "-c", "import threestudio_redream as r; print(r.__file__)"], cwd=folder, env=environment)
    if Path(where.strip()).is_relative_to(ROOT) and not python.is_relative_to(ROOT):
        raise ReleaseError(f"the source tree was imported, not the installation: {where.strip()}")
    command: list[str | Path] = [python.with_name("redream"), "launch", "--gpu", "cpu"]
    words = ["--config", "custom_configs/redream.yaml", "system.prompt_processor.prompt=a blue robot", *words]
    run([*command, *words], cwd=folder, env=environment)
    trials = list((folder / "outputs" / "redream").iterdir())
    missing = [name for name in PROMISED if not any(list(trial.glob(name)) for trial in trials)]
    if len(trials) != 1 or missing:
        raise ReleaseError(f"the run left {len(trials)} trial folders, without {missing}")
    return trials[0]


def describe(python: Path, out: Path) -> None:
    """Bill of materials and licences of an environment.

    Raises:
        ReleaseError: a package of the base install has a licence that binds what is built on it.
    """
    tools: list[str | Path] = [sys.executable, "-m"]
    options: list[str | Path] = ["--pyproject", ROOT / "pyproject.toml", "--of", "JSON", "-o", out / "sbom.cdx.json"]
    run([*tools, "cyclonedx_py", "environment", *options, python])
    listed = json.loads(run([*tools, "piplicenses", "--python", python, "--format", "json"]))
    rows = sorted((row["Name"], row["Version"], row["License"].replace("\n", " ")[:80]) for row in listed)
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    (out / "licences.md").write_text(f"| package | version | licence |\n| --- | --- | --- |\n{table}", encoding="utf-8")
    if binding := [row for row in rows if BINDING.search(row[2]) and not LESSER.search(row[2])]:
        raise ReleaseError(f"these licences bind what is built on the base install: {binding}")


def check(out: Path, words: list[str]) -> None:
    """Try the wheel and the sdist; the words are overrides of the main job's configuration."""
    for archive in archives_in(out):
        with tempfile.TemporaryDirectory(prefix="redream-release-") as scratch:
            began = time.monotonic()
            python = install(archive, Path(scratch) / "env")
            installed = time.monotonic()
            folder = Path(scratch) / "empty"
            folder.mkdir()
            trial = main_job(python, folder, words)
            bootstrap.say(
                f"{archive.name}: installed in {installed - began:.0f} s, pip check clean, main job in "
                f"{time.monotonic() - installed:.0f} s, everything there in {trial.relative_to(folder)}"
            )
            if archive.suffix == ".whl":
                describe(python, out)
                bootstrap.say(f"bill of materials and licences: {out / 'sbom.cdx.json'}, {out / 'licences.md'}")


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("build", "check"))
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the archives (default: dist)")
    parser.add_argument("overrides", nargs="*", help="key=value over the main job's configuration")
    options = parser.parse_intermixed_args(argv)
    try:
        if options.stage == "build":
            build(options.out.resolve())
        else:
            check(options.out.resolve(), options.overrides)
    except (ReleaseError, bootstrap.SetupError) as error:
        sys.stderr.write(f"release stopped: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
