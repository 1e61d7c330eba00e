"""Captions out of file names, for assets that nobody described."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = ["MAX_CAPTION_CHARACTERS", "caption_from_path", "clean_text"]

MAX_CAPTION_CHARACTERS = 1000

#: Words of a pipeline, not of the thing: kinds of asset, levels of detail, states of work.
_NOISE = frozenset(
    """
    16k 1k 2k 4k 8k all anim animated asset assets baked blend centered centred clean cleaned cm coll collision combined
    copy data decimated default download downloads draft export exported fbx file files final fixed geo geometry glb
    gltf high highpoly import lod lods low lowpoly mat material materials merged mesh meshes mid mm model
    models new nontextured obj object objects off old ply poly prop props pbr quads rig rigged root scaled scene
    simplified sk sm source src stl temp test tex texture textured textures tmp tri tris unwrapped untitled uv uvmap uvs
    ver version vis visual wip
    """.split()  # noqa: SIM905  a word list reads better than a hundred quoted words
)
#: Words that say which one, not what: they are put behind the name of the folder (YCB's google_16k is dropped).
_WEAK = frozenset("back base body bottom front google hand inner left main none outer part right side top".split())  # noqa: SIM905
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z]{2})(?=\d)|(?<=\d)(?=[A-Za-z]{3})")
_HASH = re.compile(r"[0-9a-f]{12,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_VERSION = re.compile(r"v?\d+(?:\.\d+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean_text(text: str, limit: int = MAX_CAPTION_CHARACTERS) -> str:
    """Text from outside on one line: control and direction characters become spaces, runs of spaces one space."""
    return " ".join(_CONTROL.sub(" ", text[: 4 * limit]).split())[:limit].strip()


def caption_from_path(path: str) -> str:
    """A phrase for the thing that a path names: ``"props/SM_RedChair_02_LOD0.glb" -> "red chair"``.

    Numbers, hashes and the words of pipelines are left out; where nothing is left, the folder above is asked:
    ``"cracker_box/textured.obj" -> "cracker box"``, ``"glove/left.glb" -> "glove left"``. If no part of the path
    says anything, the file name comes back as words, even if it is noise.

    Args:
        path: below the root of the library, with forward slashes.
    """
    pure = PurePosixPath(path)
    weak: list[str] = []
    for part in (pure.stem, *reversed(pure.parts[:-1])):
        words = _words(part)
        if words and not _WEAK.issuperset(words):
            return clean_text(" ".join(words + weak))
        weak = weak or [word for word in words if word not in ("none", "google")]
    if weak:
        return clean_text(" ".join(weak))
    return clean_text(re.sub(r"[_\-.]+", " ", pure.stem).lower()) or "object"


def _words(name: str) -> list[str]:
    """At most twelve words that say something; single letters count only inside a hyphenated word (t-rex)."""
    if _HASH.fullmatch(name):
        return []
    chunks = re.sub(r"[_.,;+()\[\]{}\s]+", " ", name[:512]).split()
    words = [
        word.lower()
        for chunk in chunks
        if len(chunk) > 1 or not chunk.isascii()
        for word in _CAMEL.sub(" ", chunk.replace("-", " ")).split()
    ]
    return [word for word in words if _says_something(word)][:12]


def _says_something(word: str) -> bool:
    if word in _NOISE or _VERSION.fullmatch(word) or _HASH.fullmatch(word):
        return False
    return any(character.isalpha() for character in word)
