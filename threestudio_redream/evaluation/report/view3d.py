"""A 3D view of a mesh as an element of a page: three.js and the mesh are in it, nothing is fetched.

three.js (MIT) comes with trimesh, which makes a page of a scene; our script gives that page light, colours and keys.
"""

from __future__ import annotations

import html
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.assets import Asset, load_asset
from threestudio_redream.errors import RedreamError

__all__ = ["view_3d"]

MAX_FILE, MAX_FACES = 2**26, 400_000


def view_3d(path: Path, title: str) -> str:
    """An ``iframe`` with the mesh of ``path``; a sentence instead if it cannot be read or is too large for a page.

    The frame has no rights beyond scripts (``sandbox``): it sees neither the page nor the network.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            return f'<p class="faint">{html.escape(path.name)} is too large for a page; open it in a 3D viewer.</p>'
        asset = load_asset(path)
    except (OSError, RedreamError):
        return f'<p class="faint">{html.escape(path.name)} cannot be read.</p>'
    if len(asset.faces) > MAX_FACES:
        return f'<p class="faint">{html.escape(path.name)} has too many faces for a page; open it in a 3D viewer.</p>'
    name = f"3D view of {title}"
    return (
        f'<iframe class="view3d" title="{html.escape(name)}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(_page(asset, name))}"></iframe>'
    )


def _page(asset: Asset, name: str) -> str:
    from trimesh.viewer.notebook import scene_to_html

    script = resources.files(__package__).joinpath("static").joinpath("view3d.js").read_text("utf-8")
    page = str(scene_to_html(_scene(asset)))
    head, foot = page.rsplit("</body>", 1)
    title = f"<script>document.title = {_js_string(name)};</script>"
    return f"{head}{title}<script>{script}</script></body>{foot}"


def _scene(asset: Asset) -> Any:
    """A trimesh scene of the asset, a mesh per material."""
    from PIL import Image
    from trimesh import Scene, Trimesh
    from trimesh.visual import ColorVisuals, TextureVisuals
    from trimesh.visual.material import PBRMaterial

    scene = Scene()
    for number, material in enumerate(asset.materials):
        faces = asset.faces[asset.face_materials == number]
        if not len(faces):
            continue
        used, faces = np.unique(faces, return_inverse=True)
        rgb = np.asarray(material.base_color[:3], np.float64)
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # glTF's factors are linear
        surface = PBRMaterial(
            baseColorFactor=[*linear, material.base_color[3]],
            metallicFactor=0.0,
            roughnessFactor=1.0,
            doubleSided=material.double_sided,
            alphaMode=material.alpha_mode,
        )
        uv = np.zeros((len(used), 2), np.float32) if asset.uvs is None else asset.uvs[used] * (1, -1) + (0, 1)
        if material.texture is not None and asset.uvs is not None:
            opaque = bool((material.texture[..., 3] == 255).all())
            surface.baseColorTexture = Image.fromarray(material.texture[..., : 3 if opaque else 4].copy())
        visual: Any = TextureVisuals(uv=uv, material=surface)
        if material.texture is None and asset.colors is not None:
            visual = ColorVisuals(vertex_colors=(asset.colors[used] * 255).round().astype(np.uint8))
        scene.add_geometry(
            Trimesh(
                vertices=asset.vertices[used],
                faces=faces.reshape(-1, 3),
                vertex_normals=asset.normals[used],
                visual=visual,
                process=False,
            )
        )
    return scene


def _js_string(text: str) -> str:
    import json

    return json.dumps(text).replace("<", "\\u003c")
