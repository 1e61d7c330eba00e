"""Licences: names to SPDX ids, what they ask for, and which of them a user accepts.

Only what somebody stated is mapped; a licence that nobody stated stays unknown. This is a sorting aid, not
legal advice: whether a result that was steered by an asset is a derivative of it is for the user to decide,
which is why assets that forbid derivatives are left out unless asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Licence", "LicencePolicy", "licence_fields", "licence_problem", "parse_licence"]

MAX_LICENCE_CHARACTERS = 500


@dataclass(frozen=True)
class Licence:
    """What a licence is called and what it asks for.

    Attributes:
        spdx: SPDX id (``CC-BY-4.0``, or ``LicenseRef-...`` for what SPDX has no id for); empty if unknown.
        name: what to show: the id, or the text as stated. url: of the licence text; empty if there is none.
        non_commercial, no_derivatives: what it forbids. share_alike: results that derive from the asset must
            be under the same licence. attribution: the author must be named.
        granted: False if nothing is granted that we know of: unknown, or all rights reserved.
    """

    spdx: str
    name: str
    url: str = ""
    non_commercial: bool = False
    no_derivatives: bool = False
    share_alike: bool = False
    attribution: bool = True
    granted: bool = True


@dataclass(frozen=True)
class LicencePolicy:
    """Which licences are accepted; each switch admits a kind that it names.

    Attributes:
        non_commercial: False by default: about a tenth of Objaverse is for non-commercial use only.
        no_derivatives: False by default, see the module docstring. share_alike: admitted, and flagged.
        unknown: admit assets without a licence that grants anything. Right for a library of your own, wrong
            for what was collected from elsewhere.
    """

    non_commercial: bool = False
    no_derivatives: bool = False
    share_alike: bool = True
    unknown: bool = True


#: id -> (address of its text, ShareAlike, asks for the author's name)
_SOFTWARE: dict[str, tuple[str, bool, bool]] = {
    "MIT": ("https://opensource.org/license/mit", False, True),
    "MIT-0": ("https://opensource.org/license/mit-0", False, False),
    "Apache-2.0": ("https://www.apache.org/licenses/LICENSE-2.0", False, True),
    "BSD-2-Clause": ("https://opensource.org/license/bsd-2-clause", False, True),
    "BSD-3-Clause": ("https://opensource.org/license/bsd-3-clause", False, True),
    "ISC": ("https://opensource.org/license/isc", False, True),
    "Zlib": ("https://opensource.org/license/zlib", False, True),
    "BSL-1.0": ("https://www.boost.org/LICENSE_1_0.txt", False, True),
    "Unlicense": ("https://unlicense.org/", False, False),
    "WTFPL": ("http://www.wtfpl.net/", False, False),
    "0BSD": ("https://opensource.org/license/0bsd", False, False),
    "MPL-2.0": ("https://www.mozilla.org/MPL/2.0/", True, True),
    "GPL-2.0-only": ("https://www.gnu.org/licenses/gpl-2.0.html", True, True),
    "GPL-2.0-or-later": ("https://www.gnu.org/licenses/gpl-2.0.html", True, True),
    "GPL-3.0-only": ("https://www.gnu.org/licenses/gpl-3.0.html", True, True),
    "GPL-3.0-or-later": ("https://www.gnu.org/licenses/gpl-3.0.html", True, True),
    "LGPL-2.1-only": ("https://www.gnu.org/licenses/lgpl-2.1.html", True, True),
    "LGPL-2.1-or-later": ("https://www.gnu.org/licenses/lgpl-2.1.html", True, True),
    "LGPL-3.0-only": ("https://www.gnu.org/licenses/lgpl-3.0.html", True, True),
    "LGPL-3.0-or-later": ("https://www.gnu.org/licenses/lgpl-3.0.html", True, True),
    "AGPL-3.0-only": ("https://www.gnu.org/licenses/agpl-3.0.html", True, True),
    "AGPL-3.0-or-later": ("https://www.gnu.org/licenses/agpl-3.0.html", True, True),
}
#: What people write -> id; the keys hold letters and digits only.
_ALIASES = {
    "mitlicense": "MIT",
    "apache": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apachelicense20": "Apache-2.0",
    "apachelicenseversion20": "Apache-2.0",
    "bsd2": "BSD-2-Clause",
    "bsd3": "BSD-3-Clause",
    "zliblicense": "Zlib",
    "boostsoftwarelicense10": "BSL-1.0",
    "mpl2": "MPL-2.0",
    "gpl2": "GPL-2.0-only",
    "gpl20": "GPL-2.0-only",
    "gplv2": "GPL-2.0-only",
    "gpl3": "GPL-3.0-only",
    "gpl30": "GPL-3.0-only",
    "gplv3": "GPL-3.0-only",
    "lgpl3": "LGPL-3.0-only",
    "lgplv3": "LGPL-3.0-only",
    "agpl3": "AGPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
}
_CANONICAL = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in _SOFTWARE}
_PUBLIC_DOMAIN = {"publicdomain", "pd", "publicdomainmark", "publicdomainmark10", "pdm", "pdm10"}
_CC0 = {"cc0", "cc010", "cczero", "creativecommonszero", "creativecommons0", "cc0publicdomain", "cc010universal"}
_CC0_URL = "https://creativecommons.org/publicdomain/zero/1.0/"
_RESERVED = (
    "allrightsreserved",
    "proprietary",
    "sketchfabstandard",
    "sketchfabeditorial",
    "standardlicense",
    "editorial",
)
#: flag -> (the word that Creative Commons abbreviates it to, phrases without spaces)
_RESTRICTIONS = {
    "non_commercial": ("nc", ("noncommercial", "notforcommercial", "personaluse", "researchonly", "editorial")),
    "no_derivatives": ("nd", ("noderiv", "nomodification")),
    "share_alike": ("sa", ("sharealike",)),
}
_CC_URL = re.compile(r"creativecommons\.org/(licenses/([a-z-]+)(?:/(\d\.\d))?|publicdomain/(zero|mark))", re.IGNORECASE)
_CC_TEXT = re.compile(r"(?:cc)?(by(?:nc|sa|nd)*)(?:v?(\d)(\d)?)?(?:international|unported|deed|license|licence)*")
_WORDS = (
    ("creativecommons", "cc"),
    ("attribution", "by"),
    ("noncommercial", "nc"),
    ("noderivatives", "nd"),
    ("noderivs", "nd"),
    ("sharealike", "sa"),
)


def parse_licence(text: str, url: str = "") -> Licence:
    """The licence that a name, an SPDX id, a Sketchfab slug or an address stands for.

    ``parse_licence("by-nc-sa").spdx -> "CC-BY-NC-SA-4.0"``, ``parse_licence("Apache 2").spdx -> "Apache-2.0"``.
    Restrictions count even where the licence has no id: ``"free for non-commercial use"`` is unknown and
    non-commercial.

    Args:
        text: as stated by the library; at most 500 characters of it are read.
        url: of the licence if the library gives one. Where it is stricter than the text, the licence is unknown
            with the restrictions of both.
    """
    stated = " ".join(text.split())[:MAX_LICENCE_CHARACTERS]
    url = url if url.startswith(("https://", "http://")) and len(url) <= 2000 else ""
    squeezed, words = _squeeze(stated), set(re.findall("[a-z]+", stated.lower()))
    flags = {
        flag: word in words or any(phrase in squeezed for phrase in phrases)
        for flag, (word, phrases) in _RESTRICTIONS.items()
    }
    found, linked = _from_text(stated) or _from_url(stated), _from_url(url)
    if linked is not None and stated:
        flags = {flag: said or getattr(linked, flag) for flag, said in flags.items()}
    found = found if stated else linked
    # Text and address that contradict each other: then the stricter reading holds, and nothing counts as granted.
    if found is not None and all(getattr(found, flag) for flag, said in flags.items() if said):
        return found
    reserved = any(phrase in squeezed for phrase in _RESERVED)
    return Licence(
        spdx="LicenseRef-all-rights-reserved" if reserved else "",
        name=stated or "unknown",
        url=url,
        granted=False,
        **flags,
    )


def licence_fields(text: str, url: str = "") -> tuple[str, str]:
    """``licence`` and ``licence_url`` of an asset record: the id of a licence that grants something, else the text
    as stated, so that nothing it says is lost."""
    licence = parse_licence(text, url)
    stated = " ".join(text.split())[:MAX_LICENCE_CHARACTERS]
    return licence.spdx if licence.granted else stated, licence.url


def licence_problem(text: str, policy: LicencePolicy | None = None, *, url: str = "") -> str | None:
    """Why an asset under this licence is left out, as a sentence; None if the policy admits it."""
    policy, licence = policy or LicencePolicy(), parse_licence(text, url)
    if licence.non_commercial and not policy.non_commercial:
        return f"the licence ({licence.name}) forbids commercial use; --allow-non-commercial admits it"
    if licence.no_derivatives and not policy.no_derivatives:
        return f"the licence ({licence.name}) forbids derivatives; --allow-no-derivatives admits it"
    if licence.share_alike and not policy.share_alike:
        return f"the licence ({licence.name}) is ShareAlike, which this index leaves out"
    if not licence.granted and not policy.unknown:
        return f"the licence ({licence.name}) grants nothing that we know of; --allow-unknown-licence admits it"
    return None


def _squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _creative_commons(kind: str, version: str) -> Licence | None:
    """``kind`` is ``by`` with ``nc``, ``nd``, ``sa`` in any order; an open version gives an id of our own."""
    parts = re.findall("by|nc|nd|sa", kind)
    if parts[:1] != ["by"] or len(set(parts)) != len(parts) or {"nd", "sa"} <= set(parts):
        return None
    if version not in ("", "1.0", "2.0", "2.5", "3.0", "4.0"):
        return None
    slug = "-".join(part for part in ("by", "nc", "nd", "sa") if part in parts)
    spdx = f"CC-{slug.upper()}-{version}" if version else f"LicenseRef-CC-{slug.upper()}"
    return Licence(
        spdx=spdx,
        name=spdx,
        url=f"https://creativecommons.org/licenses/{slug}/{version}/" if version else "",
        non_commercial="nc" in parts,
        no_derivatives="nd" in parts,
        share_alike="sa" in parts,
    )


def _plain(spdx: str, url: str) -> Licence:
    return Licence(spdx, spdx, url, attribution=False)


def _from_text(text: str) -> Licence | None:
    squeezed = _squeeze(text).removeprefix("licenseref")
    if squeezed in _CC0:
        return _plain("CC0-1.0", _CC0_URL)
    if squeezed in _PUBLIC_DOMAIN:
        return _plain("LicenseRef-public-domain", "")
    spdx = _ALIASES.get(squeezed) or _CANONICAL.get(squeezed)
    if spdx is not None:
        url, share_alike, attribution = _SOFTWARE[spdx]
        return Licence(spdx, spdx, url, share_alike=share_alike, attribution=attribution)
    short = squeezed
    for long, abbreviation in _WORDS:
        short = short.replace(long, abbreviation)
    match = _CC_TEXT.fullmatch(short)
    if match is None:
        return None
    if match[2]:
        return _creative_commons(match[1], f"{match[2]}.{match[3] or 0}")
    # Sketchfab's slugs ("by-nc"), which Objaverse keeps, mean 4.0; "CC BY-NC" by itself leaves the version open.
    return _creative_commons(match[1], "4.0" if squeezed.startswith("by") else "")


def _from_url(text: str) -> Licence | None:
    match = _CC_URL.search(text)
    if match is None:
        return None
    if match[4] is not None:
        zero = match[4].lower() == "zero"
        return _plain("CC0-1.0", _CC0_URL) if zero else _plain("LicenseRef-public-domain", "")
    return _creative_commons(match[2].lower().replace("-", ""), match[3] or "")
