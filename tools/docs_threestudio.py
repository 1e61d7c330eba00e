"""The generated page of what stands in for ``import threestudio``: docs/reference/threestudio.md."""

from __future__ import annotations

from collections.abc import Iterator

from threestudio_redream.catalog import ALIASES, BUILTIN_MODULES
from threestudio_redream.runtime.stand_in import VERSION
from threestudio_redream.runtime.stand_in.table import ABSENT, ABSENT_NAMES, PROVIDED, REGISTERED_UPSTREAM

__all__ = ["threestudio_names"]

INTRO = f"""# threestudio's names

<!-- Written by `python -m tools.docs_reference`; do not edit. -->

What `import threestudio` gives an extension under this project's launcher: the modules and names of upstream
{VERSION} that are here, and why the others are not. [Extensions](../extensions.md) says how it works. The table is
[`table.py`](../../threestudio_redream/runtime/stand_in/table.py); a test compares this page with it."""


CHECKOUT = """A module comes from a checkout of upstream where `THREESTUDIO_DIR` names one; what it needs in turn, it
still needs. Without one, importing it is an error with the reason below."""

NAMES = """The names that configurations give as `*_type`. With `THREESTUDIO_DIR` those that are not here come from the
checkout, too. An extension may register a class of its own under any name that does not say yes."""


def _short(target: str) -> str:
    return target.partition(":")[0].removeprefix("threestudio_redream.")


def _here() -> Iterator[str]:
    from threestudio_redream.runtime import typing

    yield "| module | names | ours |"
    yield "| --- | --- | --- |"
    for module, table in PROVIDED.items():
        names = {name: f"{module}:{name}" for name in typing.__all__} if module.endswith(".typing") else table
        if not names:
            continue
        places = (
            ["runtime.typing"] if module.endswith(".typing") else sorted({_short(target) for target in names.values()})
        )
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        yield f"| `{module}` | {listed} | {', '.join(f'`{place}`' for place in places)} |"


def _absent() -> Iterator[str]:
    yield "| module | why |"
    yield "| --- | --- |"
    for module, reason in ABSENT.items():
        yield f"| `{module}` | {reason} |"
    yield ""
    yield "| name | why |"
    yield "| --- | --- |"
    for path, reason in ABSENT_NAMES.items():
        yield f"| `{path.replace(':', '.')}` | {reason} |"


def _registered() -> Iterator[str]:
    yield "| registered name | here |"
    yield "| --- | --- |"
    rows = dict.fromkeys(BUILTIN_MODULES, "yes")
    rows |= {name: f"[`{ours}`](configuration.md#{ours}), which takes the same keys" for name, ours in ALIASES.items()}
    for name, (_, instead) in REGISTERED_UPSTREAM.items():
        rows[name] = f"no; nearest, with keys of its own: `{instead}`" if instead else "no"
    for name in sorted(rows):
        yield f"| `{name}` | {rows[name]} |"


def threestudio_names() -> str:
    """``docs/reference/threestudio.md``."""
    sections = [
        INTRO,
        "## What is here",
        "\n".join(_here()),
        "## What is not",
        CHECKOUT,
        "\n".join(_absent()),
        "## Registered names",
        NAMES,
        "\n".join(_registered()),
    ]
    return "\n\n".join(sections) + "\n"
