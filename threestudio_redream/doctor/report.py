"""The doctor's answer: one object, shown as tables to a person and as JSON to a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threestudio_redream import __version__
from threestudio_redream.doctor.checkout import describe_checkout
from threestudio_redream.doctor.examine import Finding, examine
from threestudio_redream.doctor.machine import describe_machine
from threestudio_redream.doctor.models import ModelFinding, examine_models
from threestudio_redream.doctor.probes import CAPABILITIES, PROBES, Capability, Probe

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Diagnosis", "diagnose", "render"]

_STYLE = {"found": "green", "missing": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Diagnosis:
    """Everything the doctor found out.

    Attributes:
        machine: see :func:`threestudio_redream.doctor.machine.describe_machine`.
        models: see :func:`threestudio_redream.doctor.models.examine_models`.
        checkout: see :func:`threestudio_redream.doctor.checkout.describe_checkout`.
        devices: torch devices, e.g. ``["cpu", "cuda:0 NVIDIA L4, 22 GiB"]``; empty without torch.
    """

    machine: dict[str, Any]
    findings: tuple[Finding, ...]
    capabilities: tuple[Capability, ...] = CAPABILITIES
    models: tuple[ModelFinding, ...] = ()
    checkout: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether every required component was found."""
        return all(finding.status == "found" for finding in self.findings if finding.required)

    @property
    def devices(self) -> list[str]:
        """Devices that torch can compute on."""
        return next((finding.facts.get("devices", []) for finding in self.findings if finding.name == "torch"), [])

    def obstacles(self, capability: Capability) -> list[str]:
        """What stands in the way of a capability; empty when it works."""
        status = {finding.name: finding.status for finding in self.findings}
        lacking = [
            f"{name} is {status.get(name, 'missing')}" for name in capability.needs if status.get(name) != "found"
        ]
        if capability.device and not any(device.startswith(capability.device) for device in self.devices):
            lacking.append("no GPU that torch can use")
        return lacking

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain JSON values."""
        return {
            "schema": 1,
            "version": __version__,
            "ok": self.ok,
            "machine": self.machine,
            "devices": self.devices,
            "capabilities": [
                {"name": item.name, "works": not self.obstacles(item), "obstacles": self.obstacles(item)}
                for item in self.capabilities
            ],
            "components": [finding.as_dict() for finding in self.findings],
            "models": [model.as_dict() for model in self.models],
            "checkout": self.checkout,
        }


def diagnose(
    probes: Sequence[Probe] = PROBES,
    *,
    outputs: str | Path = "outputs",
    timeout: float = 90.0,
    ask_hub: bool = False,
    checkout: str | Path | None = None,
) -> Diagnosis:
    """Examine this machine.

    Args:
        probes: components to try.
        outputs: folder that runs are written to, for the disk space line.
        timeout: seconds that one batch of components may take.
        ask_hub: whether the hub is asked for the models that are not here.
        checkout: of upstream threestudio; left out, what ``THREESTUDIO_DIR`` names.
    """
    return Diagnosis(
        describe_machine(outputs),
        tuple(examine(probes, timeout=timeout)),
        models=tuple(examine_models(ask_hub)),
        checkout=describe_checkout(checkout),
    )


def render(diagnosis: Diagnosis, console: Console) -> None:
    """Print a diagnosis for a person: what works, what does not and the cure, the machine."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"threestudio-redream {__version__}", title_justify="left", box=None, pad_edge=False)
    for heading in ("component", "", "version", "remark"):
        table.add_column(heading, overflow="fold")
    for item in diagnosis.findings:
        word = item.status if item.required or item.status != "missing" else "not installed"
        remark = item.error or item.purpose + (f": {item.detail}" if item.detail else "")
        table.add_row(item.name, Text(word, style=_style(item)), item.version, Text(remark))
    console.print(table)

    cures = [item for item in diagnosis.findings if item.cure and (item.required or item.status == "broken")]
    if cures:
        console.print("\nTo cure:", style="bold")
    for item in cures:
        console.print(Text(f"  {item.name}: {item.cure}"), soft_wrap=True)
    options = [item for item in diagnosis.findings if item.optional_install]
    if options:
        console.print("\nOptional:", style="bold")
    for item in options:
        licence = f" ({item.licence})" if item.licence else ""
        console.print(Text(f"  {item.name}{licence}, {item.purpose}: {item.cure}"), soft_wrap=True)
    if diagnosis.models:
        _render_models(diagnosis.models, console)

    console.print("\nWhat works here:", style="bold")
    for capability in diagnosis.capabilities:
        lacking = diagnosis.obstacles(capability)
        line = Text("  yes  " if not lacking else "  no   ", style="green" if not lacking else "yellow")
        console.print(line + Text(capability.name + (f": {', '.join(lacking)}" if lacking else ""), style="default"))
    if diagnosis.checkout:
        console.print("\nCheckout of threestudio:", style="bold")
        console.print(Text("  " + _checkout_line(diagnosis.checkout)), soft_wrap=True)
    console.print("\nThis machine:", style="bold")
    for line_text in _machine_lines(diagnosis):
        console.print(Text("  " + line_text), soft_wrap=True)


def _render_models(models: Sequence[ModelFinding], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for model in models:
        style = "dim" if model.status == "not here" else "yellow"
        style = "green" if model.status in ("here", "downloadable") else style
        said = f"{model.use} ({model.licence})" + (f": {model.detail}" if model.detail else "")
        table.add_row(f"  {model.name}", Text(model.status, style=style), Text(said))
    console.print("\nModels:", style="bold")
    console.print(table)
    if any(model.status == "not here" for model in models):
        console.print("  Whether the hub has the others: redream doctor --hub")


def _checkout_line(facts: dict[str, Any]) -> str:
    known = ", ".join(filter(None, (facts["version"] and f"version {facts['version']}", facts["commit"])))
    cure = f" The cure: {facts['cure']}" if facts["cure"] else ""
    if facts["error"]:
        return f"{facts['path']}: {facts['error']}.{cure}"
    clones = f", clone in {', '.join(facts['clones'])}" if facts["clones"] else ""
    return f"{facts['path']} ({known or 'of no known version'}): shim {facts['shim']}{clones}.{cure}"


def _style(item: Finding) -> str:
    return "dim" if item.status == "missing" and not item.required else _STYLE[item.status]


def _machine_lines(diagnosis: Diagnosis) -> list[str]:
    machine = diagnosis.machine
    settings = ", ".join(f"{name}={value}" for name, value in machine["thread_settings"].items())
    return [
        f"{machine['system']}, Python {machine['python']} at {machine['executable']}",
        f"devices: {', '.join(diagnosis.devices) or 'unknown, as torch does not work'}",
        f"{machine['usable_cores']} of {machine['cores']} cores usable" + (f" ({settings})" if settings else ""),
        f"memory: {_gib(machine['memory_available'])} available of {_gib(machine['memory_total'])}",
        f"{machine['outputs']}: {_gib(machine['outputs_free'])} free"
        + ("" if machine["outputs_writable"] else ", but not writable"),
    ]


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
