"""Licences: what is mapped, what stays unknown, what is left out; captions out of names; attribution."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threestudio_redream.retrieval.curation.attribution import attribution_markdown, write_attribution
from threestudio_redream.retrieval.curation.licences import (
    LicencePolicy,
    licence_fields,
    licence_problem,
    parse_licence,
)
from threestudio_redream.retrieval.sources.captions import caption_from_path, clean_text
from threestudio_redream.retrieval.types import AssetRecord


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("by", "CC-BY-4.0"),
        ("by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("by-nd", "CC-BY-ND-4.0"),
        ("cc0", "CC0-1.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0"),
        ("CC BY-NC 4.0 DEED", "CC-BY-NC-4.0"),
        ("CC-BY-4.0 (http://creativecommons.org/licenses/by/4.0/)", "CC-BY-4.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("https://creativecommons.org/licenses/by-nc/3.0/us/", "CC-BY-NC-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "LicenseRef-public-domain"),
        ("CC Attribution", "LicenseRef-CC-BY"),
        ("CC-BY-SA", "LicenseRef-CC-BY-SA"),
        ("MIT License", "MIT"),
        ("Apache 2", "Apache-2.0"),
        ("GPLv3", "GPL-3.0-only"),
        ("Public Domain", "LicenseRef-public-domain"),
        ("Sketchfab Standard", "LicenseRef-all-rights-reserved"),
        ("by-sa-nd", ""),
        ("CC-BY-9.0", ""),
        ("BSD", ""),
        ("royalty free", ""),
        ("CC-BY-4.0 or MIT", ""),
        ("", ""),
    ],
)
def test_names_become_spdx_ids_or_stay_unknown(text: str, spdx: str) -> None:
    licence = parse_licence(text)
    assert licence.spdx == spdx
    assert licence.granted == (spdx not in ("", "LicenseRef-all-rights-reserved"))
    if spdx:
        again = parse_licence(spdx)
        assert (again.spdx, again.granted) == (spdx, licence.granted)


def test_flags_follow_the_words() -> None:
    licence = parse_licence("by-nc-sa")
    assert (licence.non_commercial, licence.share_alike, licence.no_derivatives, licence.attribution) == (
        True, True, False, True,
    )  # fmt: skip
    assert parse_licence("GPL-3.0-or-later").share_alike
    assert not parse_licence("cc0").attribution


@pytest.mark.parametrize(
    "text",
    [
        "free for non-commercial use",
        "CC BY-NC 4.0, see below",
        "Editorial",
        "CC-BY-NC-4.0 (http://creativecommons.org/licenses/by/4.0/)",
    ],
)
def test_a_restriction_counts_even_where_the_licence_is_unknown(text: str) -> None:
    licence = parse_licence(text)
    assert licence.non_commercial
    assert not licence.granted
    assert licence_problem(text) is not None


def test_text_and_address_that_disagree_are_read_strictly() -> None:
    licence = parse_licence("CC BY 4.0", "https://creativecommons.org/licenses/by-nc/4.0/")
    assert (licence.granted, licence.non_commercial) == (False, True)
    assert parse_licence("", "https://creativecommons.org/licenses/by/4.0/").spdx == "CC-BY-4.0"
    assert licence_fields("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/legalcode")[0] == "CC-BY-4.0"
    assert licence_fields("My own terms", "javascript:alert(1)") == ("My own terms", "")
    assert licence_fields("") == ("", "")


def test_the_policy_decides() -> None:
    assert licence_problem("by") is None
    assert licence_problem("") is None
    assert "commercial" in str(licence_problem("by-nc"))
    assert "derivatives" in str(licence_problem("by-nd"))
    assert licence_problem("by-nc", LicencePolicy(non_commercial=True)) is None
    assert licence_problem("by-nd", LicencePolicy(no_derivatives=True)) is None
    assert licence_problem("by-sa") is None
    assert "ShareAlike" in str(licence_problem("by-sa", LicencePolicy(share_alike=False)))
    assert "grants nothing" in str(licence_problem("", LicencePolicy(unknown=False)))


PHRASES = st.sampled_from(
    ["by-nc", "CC", "BY", "NC", "SA", "ND", "4.0", "Editorial", "MIT", "all rights reserved", "non-commercial", "or",
     "cc0", "https://creativecommons.org/licenses/by-nc-sa/4.0/",
     "https://creativecommons.org/licenses/by/3.0/", "ShareAlike"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40) | st.lists(PHRASES, max_size=4).map(" ".join), st.text(max_size=40) | PHRASES)
def test_any_text_is_read_without_a_crash_and_stays_what_it_was(text: str, url: str) -> None:
    name, kept_url = licence_fields(text, url)
    first, second = parse_licence(text, url), parse_licence(name, kept_url)
    for flag in ("non_commercial", "no_derivatives", "share_alike"):
        assert getattr(second, flag) >= getattr(first, flag)
    assert not (second.granted and not first.granted)


@pytest.mark.parametrize(
    ("path", "caption"),
    [
        ("props/SM_RedChair_02_LOD0.glb", "red chair"),
        ("003_cracker_box/google_16k/textured.obj", "cracker box"),
        ("Beta_Lamp/meshes/model.obj", "beta lamp"),
        ("HTMLTable.glb", "html table"),
        ("oculus-touch-v2/left.glb", "oculus touch left"),
        ("google-daydream/none.glb", "google daydream"),
        ("left.glb", "left"),
        ("T-Rex.glb", "t rex"),
        ("low-poly_tree.glb", "tree"),
        ("Z_big-red.robot (1).glb", "big red robot"),
        ("d91eae20c02a4741aeb889246b417ae4.glb", "d91eae20c02a4741aeb889246b417ae4"),
        ("001.stl", "001"),
        ("\u8eca.glb", "\u8eca"),
        ("___.glb", "object"),
    ],
)
def test_captions_out_of_names(path: str, caption: str) -> None:
    assert caption_from_path(path) == caption


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=60))
def test_any_name_gives_a_caption_on_one_line(name: str) -> None:
    caption = caption_from_path(name.replace("/", "_") + ".glb")
    assert caption
    assert caption == clean_text(caption)
    assert len(caption.splitlines()) == 1


RECORD = AssetRecord(
    "red-robot", "Red robot", "a red robot", author="A. Maker", licence="CC-BY-SA-4.0", licence_url="https://example.org/l",
    source_url="https://example.org/robot",
)  # fmt: skip


def test_attribution_names_authors_and_flags_what_needs_attention(tmp_path: Path) -> None:
    others = [
        RECORD,
        RECORD,
        replace(RECORD, asset_id="b", name="Blue mug", licence="CC0-1.0", author=""),
        replace(RECORD, asset_id="c", name="Cone", licence="", licence_url=""),
        replace(RECORD, asset_id="d", name="Duck", licence="CC-BY-NC-ND-4.0", author="", source_url="javascript:x"),
    ]
    text = write_attribution(tmp_path, others).read_text()
    assert text == attribution_markdown(others)
    assert write_attribution(tmp_path / "other.md", []).read_text().endswith("No asset was used.\n")
    assert text.count("[Red robot](https://example.org/robot) by A. Maker") == 1
    assert "**ShareAlike:** Red robot." in text
    assert "**Non-commercial:** Duck." in text
    assert "**No derivatives:** Duck." in text
    assert "**Licence unknown:** Cone." in text
    assert "**Author unknown:** Duck." in text
    assert "javascript" not in text
    assert "Blue mug" in text.splitlines()[-3]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_names_from_a_library_cannot_become_markup(name: str, author: str, url: str) -> None:
    text = attribution_markdown(
        [replace(RECORD, name=name, author=author, source_url="https://" + url, licence=author)]
    )
    body = text.partition("assets.\n")[2]
    assert "<" not in body
    lines = [line for line in body.splitlines() if line]
    assert all(line.startswith(("> **", "- ")) for line in lines)


def test_markup_in_a_name_is_shown_as_it_is() -> None:
    text = attribution_markdown([replace(RECORD, name="[x](http://evil.example) <script> **b** `c`", source_url="")])
    line = text.splitlines()[-1]
    assert re.search(r"(?<!\\)\[x", line) is None
    assert "http://evil" not in text
    assert "&lt;script&gt;" in line
    assert r"\*\*b\*\* \`c\`" in line
