"""``ATTRIBUTION.md``: whose assets went into a result, and what their licences ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from threestudio_redream.retrieval.curation.licences import Licence, parse_licence
from threestudio_redream.retrieval.sources.captions import clean_text
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["attribution_markdown", "write_attribution"]

FILE_NAME = "ATTRIBUTION.md"
_NOTES = (
    (
        "share_alike",
        "**ShareAlike:** {names}. If you share a result that derives from these, it must carry the same licence.",
    ),
    ("non_commercial", "**Non-commercial:** {names}. A result that derives from these must not be used commercially."),
    ("no_derivatives", "**No derivatives:** {names}. A result that derives from these must not be shared."),
)


def attribution_markdown(records: Iterable[AssetRecord]) -> str:
    """The text of ``ATTRIBUTION.md``: a line per asset, after notes on what needs attention.

    ShareAlike, non-commercial, no-derivatives, unknown licences and missing authors are named. Text from a library
    cannot become markup: everything is escaped, and only http(s) addresses turn into links.

    Args:
        records: the assets; one that occurs twice is listed once. The order is kept.
    """
    unique = list({record.asset_id: record for record in records}.values())
    lines = ["# Attribution", ""]
    if not unique:
        return "\n".join([*lines, "No asset was used.", ""])
    lines += ["This result was made with the help of these 3D assets.", ""]
    pairs = [(record, parse_licence(record.licence, record.licence_url)) for record in unique]
    notes = [text.format(names=_names(r for r, licence in pairs if getattr(licence, flag))) for flag, text in _NOTES
             if any(getattr(licence, flag) for _, licence in pairs)]  # fmt: skip
    unknown = [record for record, licence in pairs if not licence.granted]
    if unknown:
        notes.append(f"**Licence unknown:** {_names(unknown)}. Ask before you share a result that derives from these.")
    nameless = [record for record, licence in pairs if licence.granted and licence.attribution and not record.author]
    if nameless:
        notes.append(f"**Author unknown:** {_names(nameless)}. Their licences ask for the author's name.")
    lines += [line for note in notes for line in (f"> {note}", "")]
    lines += [f"- {_line(record, licence)}" for record, licence in pairs]
    return "\n".join([*lines, ""])


def write_attribution(path: str | Path, records: Iterable[AssetRecord]) -> Path:
    """Write it in one step; ``path`` is a file, or a folder that gets ``ATTRIBUTION.md``. Returns the file."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    atomic_write_text(path, attribution_markdown(records))
    return path


def _names(records: Iterable[AssetRecord]) -> str:
    return ", ".join(_escape(record.name or record.asset_id) for record in records)


def _line(record: AssetRecord, licence: Licence) -> str:
    title = _link(record.name or record.asset_id, record.source_url)
    author = _escape(record.author) if record.author else "an unknown author"
    terms = _link(licence.name, licence.url) if licence.name != "unknown" else "licence unknown"
    return f"{title} by {author}, {terms} (id {_escape(record.asset_id)})"


def _link(text: str, url: str) -> str:
    if re.fullmatch(r"https?://[^\s<>()\[\]\"'`\\|]+", url) is None:
        return _escape(text)
    return f"[{_escape(text)}]({url})"


def _escape(text: str) -> str:
    """Markdown and HTML that cannot do anything; addresses in running text do not become links."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", clean_text(text, 300))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")
