"""Run the probes in child processes and turn what happened into findings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from threestudio_redream.doctor.probes import Probe

__all__ = ["Finding", "examine"]

_WORKER = str(Path(__file__).with_name("worker.py"))


@dataclass(frozen=True)
class Finding:
    """What became of one probe.

    Attributes:
        status: ``found``, ``missing`` or ``broken``.
        detail: a remark on a component that works.
        error: the original exception, or how the process died, of one that does not.
        where: file and line the exception came from.
        cure: the command to type (or what to do instead); empty when all is well.
        licence: as the installed distribution states it, else what is known of it; empty if neither.
        facts: more that the check learned, e.g. ``devices`` of torch.
    """

    name: str
    status: str
    purpose: str = ""
    required: bool = False
    version: str = ""
    detail: str = ""
    error: str = ""
    where: str = ""
    cure: str = ""
    licence: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def optional_install(self) -> bool:
        """Whether this is an optional component that a command would install."""
        return self.status == "missing" and not self.required and " -m pip " in self.cure

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return asdict(self)


def examine(probes: Iterable[Probe], *, timeout: float = 90.0) -> list[Finding]:
    """Try every probe and report each, in the order given.

    Args:
        probes: what to try; those whose module is not installed cost no process.
        timeout: seconds that one batch may take before the component under way counts as broken. Generous,
            as the first import of a large library from a slow disk takes its time.
    """
    probes = list(probes)
    answers: dict[str, dict[str, Any]] = {}
    batches: dict[str, list[Probe]] = {}
    for probe in probes:
        if _is_installed(probe.module):
            batches.setdefault(probe.batch, []).append(probe)
        else:
            answers[probe.name] = {"status": "missing"}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for batch in pool.map(lambda members: _run_batch(members, timeout), batches.values()):
            answers.update(batch)
    return [_finding(probe, answers[probe.name]) for probe in probes]


def _is_installed(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None  # no origin: a stray folder that happens to have the name


def _run_batch(probes: Sequence[Probe], timeout: float) -> dict[str, dict[str, Any]]:
    """Answers by name. A component that takes the process down is marked, and the rest tried without it."""
    answers: dict[str, dict[str, Any]] = {}
    left = list(probes)
    while left:
        request = {
            "sys_path": sys.path,
            "probes": [{"name": probe.name, "module": probe.module, "check": probe.check} for probe in left],
        }
        command = [sys.executable, _WORKER]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(request),
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # what a native library says is in any encoding
                timeout=timeout,
                check=False,
            )
            output, ending = done.stdout, _describe_exit(done.returncode, done.stderr)
        except subprocess.TimeoutExpired as error:
            output, ending = _as_text(error.stdout), f"no answer within {timeout:g} s"
        for line in output.splitlines():
            message = _parse(line)
            if "status" in message:
                answers[message["name"]] = message
        dead = next((probe for probe in left if probe.name not in answers), None)
        if dead is not None:
            answers[dead.name] = {"status": "broken", "error": ending}
        left = [probe for probe in left if probe.name not in answers]
    return answers


def _parse(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:  # cut off when the process died
        return {}
    return message if isinstance(message, dict) else {}


def _as_text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _describe_exit(code: int, stderr: str) -> str:
    last = stderr.strip().splitlines()[-1:] or [""]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"importing or using it ended the process with {name}" + (f": {last[0]}" if last[0] else "")
    return f"importing or using it ended the process with status {code}" + (f": {last[0]}" if last[0] else "")


def _finding(probe: Probe, answer: dict[str, Any]) -> Finding:
    known = {"name", "status", "version", "detail", "error", "where"}
    status, version, error = answer["status"], answer.get("version", ""), answer.get("error", "")
    if status == "found" and probe.floor and _number(version) < _number(probe.floor):
        status, error = "broken", f"version {version} is older than {probe.floor}"
    return Finding(
        name=probe.name,
        status=status,
        purpose=probe.purpose,
        required=probe.required,
        version=version,
        detail=answer.get("detail", ""),
        error=error,
        where=answer.get("where", ""),
        cure=_cure(probe, status, error),
        licence=_licence(probe),
        facts={key: value for key, value in answer.items() if key not in known},
    )


def _licence(probe: Probe) -> str:
    """Metadata of three generations: an SPDX expression, a classifier, or free text, at times the whole licence."""
    try:
        found = importlib.metadata.metadata(probe.name).json
    except importlib.metadata.PackageNotFoundError:
        return probe.licence
    lines = [str(line) for line in found.get("classifier", ()) if str(line).startswith("License :: ")]
    short = next((line.rpartition(" :: ")[2] for line in lines if line.count(" :: ") > 1), "")
    free = str(found.get("license", "")).strip().split("\n")[0]
    return str(found.get("license_expression", "")) or short or (free if len(free) <= 60 else "") or probe.licence


def _number(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0). Enough to compare with a floor."""
    parts: list[int] = []
    for part in version.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def _cure(probe: Probe, status: str, error: str) -> str:
    pip = f"{sys.executable} -m pip "
    install = probe.install or f"install '{probe.requirement}'"
    if status == "found":
        return ""
    if status == "missing":
        return probe.advice or pip + install
    if probe.repair:
        return pip + probe.repair
    if "is older than" in error:
        return pip + install.replace("install ", "install --upgrade ", 1)
    if error.startswith("ModuleNotFoundError"):  # one of its own dependencies is not there
        return pip + install
    return pip + install.replace("install ", "install --force-reinstall --no-deps ", 1)
