"""Material libraries of OBJ files."""

from __future__ import annotations

from typing import NamedTuple

from threestudio_redream.assets.limits import Limits, check_limit

__all__ = ["GREY", "MtlMaterial", "parse_mtl"]

#: Colour of a surface that the file says nothing about: light, but not the white of many backgrounds.
GREY = (0.75, 0.75, 0.75, 1.0)

#: Options of ``map_Kd`` that take this many values at most; numbers may be left out from the right.
_OPTIONS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2, "-bm": 1, "-boost": 1, "-texres": 1}
_WORD_OPTIONS = {"-blendu", "-blendv", "-clamp", "-cc", "-imfchan", "-type"}


class MtlMaterial(NamedTuple):
    """One ``newmtl`` block.

    ``color`` is RGBA in [0, 1], sRGB-encoded; ``texture`` and ``opacity`` are references as written;
    the alpha of the texture counts only if ``opacity`` (map_d) names the same image (``cutout``).
    """

    color: tuple[float, float, float, float] = GREY
    texture: str | None = None
    opacity: str | None = None
    clamp: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def cutout(self) -> bool:
        return self.texture is not None and self.opacity == self.texture


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _texture(arguments: str) -> tuple[str, bool, tuple[str, ...]]:
    """File name, clamp flag and warnings of a ``map_Kd`` line; the name may hold blanks."""
    clamp, warnings = False, []
    while arguments.startswith("-"):
        option, _, rest = arguments.partition(" ")
        words = rest.split()
        if option in _WORD_OPTIONS and words:
            clamp = clamp or (option == "-clamp" and words[0] == "on")
            taken = 1
        elif option in _OPTIONS:
            taken = 0
            while taken < _OPTIONS[option] and taken < len(words) and _is_number(words[taken]):
                taken += 1
            warnings.append(f"the map_Kd option {option} is ignored")
        else:
            break
        arguments = " ".join(words[taken:])
    return arguments.strip(), clamp, tuple(warnings)


def _color(words: list[str]) -> tuple[float, float, float] | None:
    values = [float(word) for word in words[:3] if _is_number(word)]
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(0.0 <= value < 1e6 for value in values):
        return None
    red, green, blue = (min(value, 1.0) for value in values)
    return red, green, blue


def parse_mtl(data: bytes, limits: Limits) -> dict[str, MtlMaterial]:
    """Materials by name: diffuse colour (Kd), opacity (d, Tr, map_d) and diffuse texture (map_Kd).

    A texture replaces Kd instead of being multiplied with it: exporters often write an arbitrary grey
    there. Lines that make no sense are skipped.

    Raises:
        AssetLimitError: too many materials.
    """
    materials: dict[str, MtlMaterial] = {}
    name: str | None = None
    for line in data.decode("utf-8", "replace").splitlines():
        keyword, _, arguments = line.strip().replace("\t", " ").partition(" ")
        keyword, arguments = keyword.lower(), arguments.split(" #")[0].strip()
        if keyword == "newmtl":
            name = arguments
            materials[name] = MtlMaterial()
            check_limit(limits, "max_materials", len(materials), "materials")
        if name is None:
            continue
        material = materials[name]
        if keyword == "kd" and (color := _color(arguments.split())) is not None:
            materials[name] = material._replace(color=(*color, material.color[3]))
        elif keyword in ("d", "tr") and arguments and _is_number(last := arguments.split()[-1]):
            alpha = float(last) if keyword == "d" else 1.0 - float(last)
            if 0.0 < alpha <= 1.0:  # 0 is a common mistake for opaque; nobody models an invisible object
                materials[name] = material._replace(color=(*material.color[:3], alpha))
        elif keyword == "map_kd" and arguments:
            texture, clamp, warnings = _texture(arguments)
            materials[name] = material._replace(texture=texture or None, clamp=clamp, warnings=warnings)
        elif keyword == "map_d" and arguments:
            materials[name] = material._replace(opacity=_texture(arguments)[0])
    return materials
