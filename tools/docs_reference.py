"""Write the generated pages of the documentation: what the code says about itself.

python -m tools.docs_reference            # writes the pages of docs/reference
python -m tools.docs_reference --check    # writes nothing; status 1 if a page is old or a key has no help

Keys, types and defaults come from the configuration dataclasses, their help from the ``Keys:`` and ``Attributes:`` of
the docstrings, verbs and flags from typer and argparse. A test compares the pages with what this tool writes now.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from tools.docs_threestudio import threestudio_names

__all__ = ["PAGES", "Key", "Part", "blocks", "command_line", "configuration", "parts", "problems"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
SOURCE = "../../"  # from docs/reference to the root

#: Blocks within the keys of registered classes: where they stand, and what checks them.
BLOCKS = {
    "system.retrieval": "threestudio_redream.retrieval.retrieve:RetrievalConfig",
    "system.references": "threestudio_redream.adaptation.references:ReferenceConfig",
    "system.adaptation": "threestudio_redream.adaptation.training:AdaptationConfig",
    "system.occupancy": "threestudio_redream.geometry.occupancy_prior:OccupancyConfig",
    "system.prior_match": "threestudio_redream.geometry.prior_match:MatchConfig",
    "system.view_scores": "threestudio_redream.systems.view_scores:ViewScoreConfig",
    "system.guard": "threestudio_redream.systems.guard:GuardConfig",
    "system.guidance.style": "threestudio_redream.guidance.style:StyleConfig",
    "system.guidance.memory": "threestudio_redream.guidance.memory:MemoryConfig",
    "system.geometry.fit": "threestudio_redream.geometry.asset_fit:FitConfig",
    "system.geometry.pos_encoding_config": "threestudio_redream.kernels.hashgrid.config:HashGridConfig",
    "system.asset": "threestudio_redream.data.asset_views:AssetSource",
}
EVERY_SYSTEM = "Every system"
ALSO = {
    "system.retrieval": "`enabled: false` switches it off; retrieval without assets is plain VSD.",
    "system.adaptation": "`enabled: false` leaves the 2D prior as it is.",
    "system.asset": "Also `data.asset` and `system.geometry.asset`.",
    "system.geometry.pos_encoding_config": "For `otype: HashGrid` and `DenseGrid`.",
    "system.geometry.fit": "Of the `retrieved-asset-initializer`.",
}


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        help: Markdown, empty if nobody has written any. together: the keys that it was written for.
    """

    name: str
    type: str
    default: str
    help: str
    together: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A class that takes configuration.

    Attributes:
        title: its registered name, or that of its dataclass. where: the key it stands under.
        parent: registered name of the class whose keys it takes over, or empty. keys: its own.
        unknown: keys that its docstring describes and that do not exist.
    """

    title: str
    where: str
    about: str
    module: str
    class_name: str
    parent: str
    keys: tuple[Key, ...]
    unknown: tuple[str, ...]


# ------------------------------------------------------------------ docstrings
def _markdown(text: str) -> str:
    """Markdown of a docstring's text: code spans and references."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", lambda found: _reference(found.group(1)), text)
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _reference(name: str) -> str:
    known = {target.rpartition(":")[2] for target in BLOCKS.values()}
    return f"[{name}](#{name.lower()})" if name in known else f"`{name}`"


def _docstring(kind: type) -> str:
    """The class's own docstring; empty for the signature that dataclasses write themselves."""
    doc = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    return "" if doc.startswith(f"{kind.__name__}(") else doc


def _split(doc: str) -> Iterator[tuple[str, str]]:
    """``(header, text)`` of a docstring: indented blocks with the line before them, prose with an empty header."""
    lines, place = doc.splitlines(), 0
    while place < len(lines):
        line, after = lines[place], lines[place + 1] if place + 1 < len(lines) else ""
        end = place + 1
        if line.endswith(":") and after.startswith(" "):
            while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
                end += 1
            yield line[:-1], inspect.cleandoc("\n" + "\n".join(lines[place + 1 : end]))
        else:
            yield "", line
        place = end


def _entries(block: str) -> list[str]:
    """Entries of an indented block, each on one line."""
    entries: list[str] = []
    for line in block.splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        elif line:
            entries.append(line)
    return entries


def _help_of(
    doc: str, names: Sequence[str], headers: tuple[str, ...]
) -> tuple[dict[str, tuple[str, tuple[str, ...]]], list[str]]:
    """Help by key, with the keys it is for, and names described that are no keys; from blocks with such headers."""
    one = "(?:" + "|".join(map(re.escape, names)) + ")" if names else "(?!)"
    start = re.compile(rf"(?:^|(?<=[.;] ))({one}(?:, {one})*): ")
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    unknown: list[str] = []
    for header, block in _split(doc):
        if not header.startswith(headers):
            continue
        for entry in _entries(block):
            pieces = start.split(entry)
            if pieces[0]:
                unknown += [name for name in pieces[0].partition(":")[0].split(", ") if name not in names]
            for listed, text in zip(pieces[1::2], pieces[2::2]):
                together = tuple(listed.split(", "))
                found |= dict.fromkeys(together, (_markdown(text.strip()), together))
    return found, unknown


def _about(doc: str) -> str:
    """The prose of a docstring, without its keys and arguments; entries of other blocks become a list."""
    lines: list[str] = []
    for header, text in _split(doc):
        if header.startswith(("Keys", "Attributes", "Args", "Raises", "Returns")):
            continue
        if header:
            lines += [f"{header}:", "", *(f"* {entry}" for entry in _entries(text)), ""]
        else:
            lines.append(text)
    return _markdown("\n".join(lines).strip())


# ------------------------------------------------------------------ dataclasses
def _yaml(value: Any) -> str:
    """A default as it would be written in a configuration."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value) if value != "" else '""'


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return re.sub(r"\bAny\b", "any", text.replace(" | None", " or null").replace(" | ", " or "))


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return _yaml(field.default)
    return _yaml(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "(required)"


def _describe(title: str, where: str, kind: type, config: type, parent: tuple[str, type] | None = None) -> Part:
    fields = dataclasses.fields(config)
    names = [field.name for field in fields]
    helps: dict[str, tuple[str, tuple[str, ...]]] = {}
    unknown: list[str] = []
    for base in [*reversed(config.__mro__), *([] if kind is config else reversed(kind.__mro__))]:
        if base.__module__.startswith("threestudio_redream"):
            headers = ("Keys", "Attributes") if dataclasses.is_dataclass(base) else ("Keys",)
            found, wrong = _help_of(_docstring(base), names, headers)
            helps |= found
            unknown += [f"{base.__name__}: {name}" for name in wrong]
    if parent is not None:
        known = {field.name for field in dataclasses.fields(parent[1])}
        declared = {name for base in config.__mro__[: config.__mro__.index(parent[1])] for name in _declared(base)}
        fields = tuple(field for field in fields if field.name not in known or field.name in declared)
    about = _docstring(kind) or _docstring(config)
    return Part(
        title,
        where,
        _about(about),
        kind.__module__,
        kind.__name__,
        "" if parent is None else parent[0],
        tuple(Key(f.name, _type(f.type), _default(f), *helps.get(f.name, ("", (f.name,)))) for f in fields),
        tuple(unknown),
    )


def _declared(base: type) -> Sequence[str]:
    return tuple(inspect.get_annotations(base))


def config_of(kind: type) -> type:
    """The dataclass that checks the configuration of a registered class."""
    return getattr(kind, "Config", None) or get_type_hints(kind)["cfg"]


def _groups() -> list[tuple[str, str, type]]:
    """Heading, key and base class of each kind of registered class."""
    from threestudio_redream.runtime.backgrounds.base import BaseBackground
    from threestudio_redream.runtime.data.stepped import SteppedDataModule
    from threestudio_redream.runtime.exporters.base import Exporter
    from threestudio_redream.runtime.geometry.base import BaseGeometry
    from threestudio_redream.runtime.guidance.base import GuidanceClock
    from threestudio_redream.runtime.materials.base import BaseMaterial
    from threestudio_redream.runtime.perceptual import PerceptualLossObject
    from threestudio_redream.runtime.prompt_processors.base import PromptProcessor
    from threestudio_redream.runtime.renderers.base import Renderer
    from threestudio_redream.runtime.system import BaseSystem

    return [
        ("Systems", "system", BaseSystem),
        ("Guidances", "system.guidance", GuidanceClock),
        ("Prompt processors", "system.prompt_processor", PromptProcessor),
        ("Geometry", "system.geometry", BaseGeometry),
        ("Materials", "system.material", BaseMaterial),
        ("Backgrounds", "system.background", BaseBackground),
        ("Renderers", "system.renderer", Renderer),
        ("Exporters", "system.exporter", Exporter),
        ("Data", "data", SteppedDataModule),
        ("Found by extensions", "", PerceptualLossObject),
    ]


def parts() -> dict[str, list[Part]]:
    """Every registered class of this project, by the heading it stands under."""
    from threestudio_redream.catalog import BUILTIN_MODULES, REDREAM_MODULES
    from threestudio_redream.runtime.registry import find
    from threestudio_redream.runtime.system import BaseLift3DSystem

    classes: dict[str, type] = {name: find(name) for name in sorted({**BUILTIN_MODULES, **REDREAM_MODULES})}
    classes = {EVERY_SYSTEM: BaseLift3DSystem, **classes}
    names = {kind: name for name, kind in classes.items()}
    found: dict[str, list[Part]] = {}
    for heading, where, base in _groups():
        for name, kind in classes.items():
            if issubclass(kind, base):
                above = next((b for b in kind.__mro__[1:] if b in names), None)
                parent = None if above is None else (names[above], config_of(above))
                found.setdefault(heading, []).append(_describe(name, where, kind, config_of(kind), parent))
    lost = set(classes) - {part.title for listed in found.values() for part in listed}
    if lost:
        raise SystemExit(f"These registered classes stand under no heading: {', '.join(sorted(lost))}. Add one.")
    return found


def block_class(target: str) -> type:
    module, _, name = target.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)


def blocks() -> list[Part]:
    """The dataclasses of :data:`BLOCKS`."""
    kinds = {where: block_class(target) for where, target in BLOCKS.items()}
    return [_describe(kind.__name__, where, kind, kind) for where, kind in kinds.items()]


def _top() -> Part:
    from threestudio_redream.runtime.config import ExperimentConfig

    return _describe("The file", "", ExperimentConfig, ExperimentConfig)


def problems() -> list[str]:
    """Keys without help, and help without a key."""
    everything = [_top(), *(part for listed in parts().values() for part in listed), *blocks()]
    found = []
    for part in everything:
        place = f"{part.title} ({part.module}.{part.class_name})"
        found += [f"{place}: the key '{key.name}' has no help" for key in part.keys if not key.help]
        found += [f"{place}: help for a key that is not there: {name}" for name in part.unknown]
    return sorted(set(found))


# ------------------------------------------------------------------ pages
def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(keys: Sequence[Key]) -> list[str]:
    """Rows of keys; keys that share their help share a row."""
    rows: dict[tuple[str, tuple[str, ...]], list[Key]] = {}
    for key in keys:
        rows.setdefault((key.help, key.together), []).append(key)
    lines = ["| key | type | default | |", "| --- | --- | --- | --- |"]
    for (text, _), shared in rows.items():
        cells = ("<br>".join(f"`{getattr(key, name)}`" for key in shared) for name in ("name", "type", "default"))
        lines.append(f"| {' | '.join(cells)} | {_cell(text)} |")
    return lines


def _section(part: Part) -> list[str]:
    lines = [f"### {part.title}", "", part.about, ""]
    path = part.module.replace(".", "/") + ".py"
    place = f"Class: [`{part.class_name}`]({SOURCE}{path})."
    if part.title == part.class_name:
        also = f" {ALSO[part.where]}" if part.where in ALSO else ""
        lines += [f"Keys of `{part.where}`.{also} {place}", ""]
    elif part.title == EVERY_SYSTEM:
        lines += [f"Base of all systems, keys under `system`. {place}", ""]
    elif part.where:
        lines += [f"`{part.where}_type: {part.title}`, keys under `{part.where}`. {place}", ""]
    if part.keys:
        lines += [*_table(part.keys), ""]
    if part.parent:
        start = "And" if part.keys else "It has"
        lines += [f"{start} the keys of [{part.parent}](#{part.parent.lower().replace(' ', '-')}).", ""]
    elif not part.keys:
        lines += ["No keys.", ""]
    return lines


def configuration() -> str:
    """``docs/reference/configuration.md``."""
    top = _top()
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m tools.docs_reference`; do not edit. Help stands in the docstrings. -->",
        "",
        "Every key of a configuration, with its type and default, as the code checks them. An unknown key, a misspelt",
        "name or a value of another type ends the run before it starts, with an error that lists the near ones. Values",
        "called *scheduled* may be a number or a schedule: `[150, 1000.0, 0.0, 300]` is 1000 until step 150 and falls",
        "to 0 at step 300; `[s0, v0, v1, s1, v2, s2, ...]` has more knots. A last number with a point counts epochs.",
        "`launch.py --config FILE key=value` overrides any key, with dots for nesting.",
        "",
        "## The file",
        "",
        top.about,
        "",
        *_table(top.keys),
        "",
    ]
    for heading, listed in parts().items():
        lines += [f"## {heading}", ""]
        for part in listed:
            lines += _section(part)
    lines += ["## Blocks", "", "Mappings within the keys above.", ""]
    for part in blocks():
        lines += _section(part)
    return "\n".join(lines).rstrip() + "\n"


def _flags(names: Sequence[str], value: str) -> str:
    return ", ".join(f"`{name}`" for name in names) + (f" `{value}`" if value else "")


def commands(app: Any, name: str = "redream") -> Iterator[tuple[str, Callable[..., Any]]]:
    """``(words, function)`` of every verb of a typer application, in alphabetical order."""
    found = [
        (f"{name} {info.name or info.callback.__name__.replace('_', '-')}", info.callback)
        for info in app.registered_commands
    ]
    for group in app.registered_groups:
        found += commands(group.typer_instance, f"{name} {group.typer_instance.info.name}")
    yield from sorted(found)


def _value_name(annotation: Any) -> str:
    """What stands for a parameter's value: nothing for a switch."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    if get_origin(kinds[0]) is list:  # list[str] | None
        kinds, more = list(get_args(kinds[0])), " ..."
    else:
        more = " ..." if get_origin(annotation) is list else ""
    names: dict[type, str] = {bool: "", int: "N", float: "X", Path: "PATH", str: "TEXT"}
    return names[kinds[0]] + more


def parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """``(name, annotation, typer's info, default)`` of a verb's parameters; one without default has ``empty``."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        inner = (hints[name], *get_args(hints[name]))  # Python 3.10 puts an Optional around what has the default None
        hint = next((one for one in inner if hasattr(one, "__metadata__")), hints[name])
        annotation, *extras = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        if extras:  # else the context of typer itself
            yield name, annotation, extras[-1], parameter.default


def _option_names(name: str, annotation: Any, info: Any) -> list[str]:
    # Within Annotated the first name is given in the place of the default.
    first = [info.default] if isinstance(info.default, str) and info.default.startswith("-") else []
    given = [*first, *(info.param_decls or ())]
    dashed = "--" + name.replace("_", "-")
    usual = [dashed, dashed.replace("--", "--no-", 1)] if bool in (annotation, *get_args(annotation)) else [dashed]
    return [one for names in given for one in names.split("/")] or usual


def _option_rows(function: Callable[..., Any]) -> list[str]:
    rows = []
    for name, annotation, info, default in parameters(function):
        argument = type(info).__name__ == "ArgumentInfo"
        names = [name.upper()] if argument else _option_names(name, annotation, info)
        shown = "required" if default is inspect.Parameter.empty else ""
        if not shown and not (default is None or default is False or default in ("", ())):
            shown = f"`{default.as_posix() if isinstance(default, Path) else _yaml(default)}`"
        words = " ".join((info.help or "").split())
        rows.append(f"| {_flags(names, '' if argument else _value_name(annotation))} | {shown} | {_cell(words)} |")
    return rows


def command_line() -> str:
    """``docs/reference/cli.md``."""
    from threestudio_redream.cli import app
    from threestudio_redream.runtime.launch import build_parser

    lines = [
        "# Commands",
        "",
        "<!-- Written by `python -m tools.docs_reference`. Do not edit: the help stands in the code of each verb. -->",
        "",
        "Training runs start with `launch.py`; `redream` does the jobs around them. The exit status of `redream` is 0",
        "when the job is done, 1 when it is not (one message on standard error says why), 2 when the command line is",
        "wrong, 130 when it was interrupted. `redream --debug VERB ...` shows the traceback behind a message.",
        "",
        "## launch.py",
        "",
        "```",
        "python launch.py --config FILE [--config FILE ...] [--train|--validate|--test|--export] [key=value ...]",
        "```",
        "",
        "Any `key=value` overrides the configuration: [its keys](configuration.md). Status 2 follows a named error.",
        "",
        "| flag | default | |",
        "| --- | --- | --- |",
    ]
    for action in build_parser()._actions:
        if "--help" not in action.option_strings:
            value = "" if action.nargs == 0 else "FILE" if action.dest == "config" else "WHERE"
            shown = "required" if action.required else f"`{action.default}`" if action.default else ""
            lines.append(f"| {_flags(action.option_strings, value)} | {shown} | {_cell(action.help or '')} |")
    lines.append("")
    for name, function in commands(app):
        arguments = [key.upper() for key, _, info, _ in parameters(function) if type(info).__name__ == "ArgumentInfo"]
        lines += [f"## {name}", "", "```", " ".join([name, *arguments, "[options]"]), "```", ""]
        lines += [_markdown(inspect.cleandoc(function.__doc__ or "")), ""]
        lines += ["| option | default | |", "| --- | --- | --- |", *_option_rows(function), ""]
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"configuration.md": configuration, "cli.md": command_line, "threestudio.md": threestudio_names}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is not as it should be")
    args = parser.parse_args(argv)
    wrong = problems()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if args.check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            wrong.append(f"docs/reference/{name} is old: python -m tools.docs_reference")
        elif not args.check:
            path.write_text(text, encoding="utf-8")
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
