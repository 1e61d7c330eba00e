"""Hooks of the documentation site: pages and links that lie outside ``docs/``.

On GitHub the pages link to files beside ``docs/``, such as ``../benchmarks/results/fit_step.json``. In the site a link
becomes one to the page made of that file (:data:`PAGES`), else one to the file in the repository. The repository's
address is ``Repository`` of ``[project.urls]`` in pyproject.toml, or the one that GitHub's own builds state. Without an
address the link becomes the name of the file. A link to a file that does not exist is a warning, which ends a strict
build.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "on_config", "on_files", "on_page_markdown", "repository", "rewrite"]

log = logging.getLogger("mkdocs.hooks.redream")  # below mkdocs' own logger, whose warnings a strict build counts

ROOT = Path(__file__).resolve().parents[1]

#: Files outside docs/ that are pages of the site, and their names there.
PAGES = {
    "retrieval_index/README.md": "indexes.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^\s*(```|~~~)")


def repository(root: Path = ROOT) -> str:
    """Address of the repository without a slash at its end; empty if nothing states one."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"(?ms)^\[project\.urls\]\n(.*?)(?=^\[|\Z)", text)
    stated = section and re.search(r"(?mi)^\"?repository\"?\s*=\s*\"(.+?)\"", section.group(1))
    if stated:
        return stated.group(1).rstrip("/")
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}" if name else ""


def rewrite(markdown: str, source: str, page: str, address: str, root: Path = ROOT) -> str:
    """A page's Markdown with the links of the site.

    Args:
        source: the file it comes from, below the root. page: its path in the site. address: of the repository.
    """
    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= bool(_FENCE.match(line))
        lines.append(line if fenced else _LINK.sub(lambda found: _link(found, source, page, address, root), line))
    return "\n".join(lines) + "\n"


def _link(found: re.Match[str], source: str, page: str, address: str, root: Path) -> str:
    picture, text, target = found.groups()
    if re.match(r"[a-z]+:|#|//", target):
        return found.group()
    path, mark, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if path.startswith("docs/") or path in PAGES:
        there = PAGES.get(path) or path.removeprefix("docs/")
        return f"{picture}[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{mark}{anchor})"
    if path.startswith("..") or not (root / path).exists():
        log.warning("%s links to %s, which does not exist", source, target)
        return found.group()
    if address:
        return f"{picture}[{text}]({address}/{'tree' if (root / path).is_dir() else 'blob'}/main/{path}{mark}{anchor})"
    return text if path in text else f"{text} (`{path}`)"


# ------------------------------------------------------------------ what mkdocs calls
def on_config(config: Any) -> Any:
    config.repo_url = repository() or None
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    there = page.file.src_uri
    source = next((source for source, name in PAGES.items() if name == there), f"docs/{there}")
    return rewrite(markdown, source, there, repository())
