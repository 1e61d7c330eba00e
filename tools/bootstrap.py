"""Make ``.venv``, install the project into it, and do nothing when nothing changed.

``make setup`` runs this; without make: ``python3 tools/bootstrap.py``. Only the standard library is
used. The steps are those a person would type:

1. ``python -m venv .venv``
2. torch alone, as the build that this machine should have. Left to pip, ``torch`` means several GB
   of CUDA libraries on Linux, also where there is no GPU. ``--torch`` chooses:

   * ``cpu`` (default): the pinned CPU build, from the configured package index if that has it,
     else from PyTorch's own CPU index;
   * ``cuda``: PyPI's build, which on Linux brings the CUDA libraries;
   * a build name of PyTorch's indexes, such as ``cu126``, ``rocm6.4`` or ``xpu``.
3. ``pip install -c requirements/constraints.txt -e ".[dev]"``

A stamp in the environment records a hash of everything these steps depend on. While it matches, the
script answers at once and touches neither pip nor the network. Choices made earlier (``--torch``,
``--extras``) are kept until others are given.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_PIN = "requirements/torch-cpu.txt"
INPUTS = ("pyproject.toml", "setup.py", "requirements/constraints.txt", TORCH_PIN, "tools/bootstrap.py")
STAMP = "redream-setup.json"


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def use_new_enough_python(argv):
    """Hand over to a newer interpreter from PATH when this one is too old.

    Raises:
        SetupError: there is none.
    """
    if sys.version_info >= OLDEST:
        return
    for minor in (13, 12, 11, 10):
        other = shutil.which(f"python3.{minor}")
        if other:
            say(f"Python {sys.version_info[0]}.{sys.version_info[1]} is too old: going on with {other}")
            raise SystemExit(subprocess.call([other, os.path.abspath(__file__), *argv]))
    raise SetupError(
        "Python {}.{} or newer is needed (got {}.{} at {}). ".format(*OLDEST, *sys.version_info[:2], sys.executable)
        + "Install one, or name it: make setup PYTHON=/path/to/python3.12"
    )


def venv_python(venv):
    """Path of the interpreter inside a virtual environment, on any system."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def fingerprint(root, torch_choice, extras):
    """Hash of all that an installed environment depends on; the folder too, as it is installed editable."""
    digest = hashlib.sha256()
    for name in INPUTS:
        path = root / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.exists() else b"absent") + b"\0")
    digest.update(json.dumps([str(root), torch_choice, extras]).encode())
    return digest.hexdigest()


def read_stamp(venv):
    """What the last finished set-up recorded; an empty dict if there is none or it is damaged."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv, stamp):
    """Record a finished set-up; the file is replaced whole, so it is never half-written."""
    temporary = venv / (STAMP + ".tmp")
    temporary.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(str(temporary), str(venv / STAMP))


def make_venv(venv):
    """Create the environment unless a working one is there (its Python is kept, whichever runs this).

    Raises:
        SetupError: this Python cannot make virtual environments.
    """
    python = str(venv_python(venv))
    for probe in ([python, "-m", "pip", "--version"], [python, "-m", "ensurepip"]):  # other tools leave pip out
        if os.path.exists(python) and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return
    say(f"set-up 1/3: creating {venv}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=False)
    if made.returncode != 0:
        raise SetupError(
            f"{sys.executable} could not create a virtual environment in {venv} (see above). On Debian and Ubuntu: "
            f"apt install python3-venv"
        )


def installed_torch(venv):
    """Version of torch in the environment, local part included (``2.13.0+cpu``), or an empty string."""
    for pattern in ("lib/python*/site-packages", "Lib/site-packages"):
        for info in venv.glob(pattern + "/torch-*.dist-info"):
            return info.name[len("torch-") : -len(".dist-info")]
    return ""


def fits(version, choice, pin):
    """Whether an installed torch is the build that ``choice`` asks for."""
    local = version.partition("+")[2]
    if choice == "cpu":
        return version == pin
    if choice == "cuda":
        return bool(version) and local != "cpu"
    return local == choice


def cpu_pin(root):
    """The pinned CPU version for this system, e.g. ``2.13.0+cpu`` (no local part on macOS)."""
    lines = re.findall(r"(?m)^torch==([^\s;]+)", (root / TORCH_PIN).read_text(encoding="utf-8"))
    return next(line for line in lines if ("+" in line) != (sys.platform == "darwin"))


def torch_command(pip, choice, pin):
    """The pip command that installs torch; for ``cpu`` the configured index is asked first, by a dry run."""
    if choice == "cuda":
        return [*pip, "install", "torch"]
    if choice != "cpu":
        return [*pip, "install", "torch", "--index-url", TORCH_INDEX + choice]
    # --no-deps: what torch needs comes with the rest, from the usual index and under the constraints.
    command = [*pip, "install", "--no-deps", "torch==" + pin]
    if subprocess.run([*command, "--dry-run"], capture_output=True, check=False).returncode == 0:
        return command
    return [*command, "--index-url", TORCH_INDEX + "cpu"]


def run(command, advice):
    """Run one step, its output shown.

    Raises:
        SetupError: it failed; ``advice`` says what to do.
    """
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise SetupError("this step failed, see above: {}\n{}".format(" ".join(command), advice))


def install(root, venv, torch_choice, extras):
    """Bring the environment to the wanted state: torch first, then everything else."""
    make_venv(venv)
    pip = [str(venv_python(venv)), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if not sys.stdout.isatty():
        pip.append("--quiet")
    there, pin = installed_torch(venv), cpu_pin(root)
    if not fits(there, torch_choice, pin):
        say(f"set-up 2/3: installing torch, build '{torch_choice}' (the largest part; a minute or more)")
        if there:
            run([*pip, "uninstall", "-y", "torch"], "Delete the environment and try again: make clean-all setup")
        run(
            torch_command(pip, torch_choice, pin),
            "Is the network reachable? Behind a mirror, set PIP_INDEX_URL or PIP_FIND_LINKS so that pip finds torch "
            f"{pin}; another build: make setup TORCH=cuda (or cu126, rocm6.4, xpu).",
        )
    say("set-up 3/3: installing the project and its dependencies")
    target = "{}[{}]".format(root, ",".join(extras))
    there = installed_torch(venv)
    # Named again, or an extra that needs torchvision would bring PyPI's newest torch, of another build.
    keep = ["torch==" + there] if there else []
    run(
        [*pip, "install", "-c", str(root / "requirements" / "constraints.txt"), "-e", target, *keep],
        "Is the network reachable? Set-up goes on where it stopped: make setup",
    )


def parse(argv):
    parser = argparse.ArgumentParser(description="Create the virtual environment and install the project into it.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where (default: .venv in the source tree)")
    parser.add_argument(
        "--torch", default="", help="cpu, cuda, or a PyTorch index name such as cu126 (default: as before)"
    )
    parser.add_argument("--extras", default="", help="extras besides dev, with commas: cuda,gpu-raster")
    return parser.parse_args(argv)


def main(argv):
    """Do what the module docstring says; returns the exit status."""
    try:
        options = parse(argv)
        use_new_enough_python(argv)
        venv = options.venv.resolve()
        stamp = read_stamp(venv)
        choice = options.torch.strip().lower() or stamp.get("torch", "cpu")
        if not re.fullmatch(r"cpu|cuda|cu\d{2,4}|rocm\d[\d.]*|xpu", choice):
            raise SetupError(
                f"TORCH names no build (got {choice!r}): use cpu, cuda, or an index such as cu126 or rocm6.4"
            )
        wanted = {name.strip() for name in options.extras.split(",") if name.strip()}
        extras = sorted({"dev"} | (wanted or set(stamp.get("extras", []))))
        mark = fingerprint(ROOT, choice, extras)
        if stamp.get("fingerprint") == mark and venv_python(venv).exists():
            return 0
        started = time.monotonic()
        if stamp:
            (venv / STAMP).unlink()
        install(ROOT, venv, choice, extras)
        write_stamp(venv, {"fingerprint": mark, "torch": choice, "extras": extras})
        say(f"set-up done in {time.monotonic() - started:.0f} s: {venv}")
        if choice == "cpu" and shutil.which("nvidia-smi"):
            say("An NVIDIA driver is here. To use the GPU, install torch's CUDA build: make setup TORCH=cuda")
        return 0
    except SetupError as error:
        sys.stderr.write(f"set-up stopped: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
