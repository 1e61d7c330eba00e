"""The generated pages of the documentation are what the code says now, and every key has help."""

from __future__ import annotations

import pytest

from threestudio_redream.catalog import BUILTIN_MODULES, REDREAM_MODULES
from tools import docs_reference


@pytest.mark.parametrize("name", docs_reference.PAGES)
def test_the_generated_page_is_what_the_tool_writes_now(name: str) -> None:
    written = (docs_reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == docs_reference.PAGES[name](), "run: python -m tools.docs_reference"


def test_every_key_has_help_and_all_help_has_a_key() -> None:
    wrong = docs_reference.problems()
    assert not wrong, "document these in the docstrings of their classes (Keys: or Attributes:)\n" + "\n".join(wrong)


def test_every_registered_name_has_a_section() -> None:
    page = (docs_reference.FOLDER / "configuration.md").read_text(encoding="utf-8")
    assert not [name for name in (*BUILTIN_MODULES, *REDREAM_MODULES) if f"\n### {name}\n" not in page]


def test_help_is_read_out_of_docstrings() -> None:
    doc = (
        "What it is.\n\nKeys:\n    rate: how fast. seed: of every draw, see\n        ``rate``.\n"
        "    low, high: of both. See :class:`~a.b.Thing`.\n    gone: is no key."
    )
    found, unknown = docs_reference._help_of(doc, ["rate", "seed", "low", "high"], ("Keys",))
    assert found == {
        "rate": ("how fast.", ("rate",)),
        "seed": ("of every draw, see `rate`.", ("seed",)),
        "low": ("of both. See `Thing`.", ("low", "high")),
        "high": ("of both. See `Thing`.", ("low", "high")),
    }
    assert unknown == ["gone"]
