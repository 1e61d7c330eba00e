"""The pages: links that lead somewhere, messages that the code has, and a site that builds."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import mkdocs_hooks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ALL = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "retrieval_index/README.md"]
TROUBLE = DOCS / "troubleshooting.md"

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs a whole clone, not a source package")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^\s*```.*?^\s*```", "", text))


@functools.cache
def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    text = re.sub(r"(?ms)^\s*```.*?^\s*```", "", path.read_text(encoding="utf-8"))
    for heading in re.findall(r"(?m)^#+ (.+)$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


# --- links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_link_leads_somewhere_on_github(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^()\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            wrong.append(target)
    assert not wrong


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(?m)^\s+- .+: (\S+\.md)$", config)
    assert sorted(listed) == sorted(
        [*(path.relative_to(DOCS).as_posix() for path in PAGES), *mkdocs_hooks.PAGES.values()]
    )
    assert yaml.safe_load(config)["strict"] is True


def test_links_outside_docs_become_addresses_or_names() -> None:
    def rewritten(text: str, address: str) -> str:
        return mkdocs_hooks.rewrite(text, "docs/reference/page.md", "reference/page.md", address).strip()

    address = "https://example.org/us/it"
    assert rewritten("[it](../../launch.py)", address) == f"[it]({address}/blob/main/launch.py)"
    assert rewritten("[runs](../../tests/runtime#x)", address) == f"[runs]({address}/tree/main/tests/runtime#x)"
    assert rewritten("[it](../../launch.py), [`launch.py`](../../launch.py)", "") == "it (`launch.py`), `launch.py`"
    assert rewritten("[how](../../CONTRIBUTING.md#start)", "") == "[how](../contributing.md#start)"
    assert rewritten("[`m`](../method.md)", "") == "[`m`](../method.md)"
    assert rewritten("```\n[it](../../launch.py)\n```", address) == "```\n[it](../../launch.py)\n```"
    assert rewritten("[a](https://example.com/b) [c](#d)", address) == "[a](https://example.com/b) [c](#d)"


def test_a_link_to_nothing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    mkdocs_hooks.rewrite("[it](../gone.py)", "docs/page.md", "page.md", "")
    assert "docs/page.md links to ../gone.py, which does not exist" in caplog.text


def test_the_address_is_the_stated_one_or_that_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    toml = tmp_path / "pyproject.toml"
    toml.write_text('[project]\nname = "it"\n', encoding="utf-8")
    assert mkdocs_hooks.repository(tmp_path) == ""
    monkeypatch.setenv("GITHUB_REPOSITORY", "us/it")
    assert mkdocs_hooks.repository(tmp_path) == "https://github.com/us/it"
    toml.write_text('[project.urls]\nRepository = "https://example.org/it/"\n[tool.x]\n', encoding="utf-8")
    assert mkdocs_hooks.repository(tmp_path) == "https://example.org/it"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    fetched = [
        address
        for page in pages
        for address in re.findall(
            r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(https?:[^\"\s>]+)", page.read_text()
        )
        if 'rel="canonical"' not in address
    ]
    assert not fetched  # the site opens with the network off


# --- messages ---------------------------------------------------------------------------------------


@functools.cache
def code_texts() -> str:
    """All text of the package's and the set-up's code, each literal on a line; the holes of f-strings end a line."""
    texts: list[str] = []
    for path in [*sorted((ROOT / "threestudio_redream").rglob("*.py")), ROOT / "tools" / "bootstrap.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.ClassDef):
                texts.append(f"class {node.name}")
    return "\n".join(texts)


@functools.cache
def raised() -> dict[str, set[str]]:
    """Text of every error that is made by its class's name, and the classes."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "threestudio_redream").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.setdefault(part.value, set()).add(node.func.id)
    return found


def quoted_messages() -> list[str]:
    rows = re.findall(r"(?m)^\| (?:[^|`]*?: )?`([^`]+)`(?: \(a warning\))? \|", TROUBLE.read_text(encoding="utf-8"))
    return [row for row in rows if " " in row]


def test_the_page_quotes_messages() -> None:
    assert len(quoted_messages()) > 50


@pytest.mark.parametrize("message", quoted_messages())
def test_every_quoted_message_is_one_of_the_code(message: str) -> None:
    kind = re.match(r"(\w+Error): ", message)
    if kind:
        assert f"class {kind.group(1)}\n" in code_texts() + "\n"
        message = message[kind.end() :]
        longest = max((part.strip(" '") for part in message.split("...")), key=len)
        classes = set().union(*(names for text, names in raised().items() if longest in text))
        assert not classes or kind.group(1) in {*classes, "MissingExtraError"}  # that one writes its text itself
    if message == "Python 3.10 or newer is needed":
        message = "... or newer is needed"
    fragments = [part.strip(" '") for part in message.split("...")]
    texts = code_texts()
    missing = [part for part in fragments if part and not all(piece in texts for piece in pieces(part))]
    assert not missing


def pieces(text: str) -> list[str]:
    """A message of the guard is put together from two texts; all others are found whole."""
    return [text] if ": the opacity has been" not in text else text.split(": the opacity has been")
