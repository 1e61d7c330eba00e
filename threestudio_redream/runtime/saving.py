"""SaverMixin: everything a system writes into its ``save`` folder.

File names are relative to that folder and cannot leave it; every file appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_path, atomic_write_text
from threestudio_redream.runtime.imaging import grayscale_image, image_grid, rgb_image, to_numpy, uv_image
from threestudio_redream.runtime.video import matching_frames, write_video

__all__ = ["SaverMixin"]


class SaverMixin:
    """Mixin of systems; ``set_save_dir`` must come before anything is saved."""

    _save_dir: str | None = None
    _wandb_logger: Any = None

    def set_save_dir(self, save_dir: str | Path) -> None:
        self._save_dir = str(save_dir)

    def get_save_dir(self) -> str:
        if self._save_dir is None:
            raise ConfigError("Nothing can be saved yet: the save folder is not set", fix="Call set_save_dir first.")
        return self._save_dir

    def get_save_path(self, filename: str) -> str:
        """Absolute or relative path below the save folder; parents are made.

        Raises:
            ConfigError: if ``filename`` would leave the save folder.
        """
        root = Path(self.get_save_dir())
        path = root / filename
        if not path.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                "A file name leaves the save folder", received=filename, fix="Use a relative name without '..'."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def convert_data(self, data: Any) -> Any:
        return to_numpy(data)

    def create_loggers(self, cfg_loggers: Any) -> None:
        """Set up the optional Weights & Biases logger: ``loggers.wandb.{enable, project, name}``."""
        wandb = (cfg_loggers or {}).get("wandb")
        if wandb and wandb.get("enable"):
            from pytorch_lightning.loggers import WandbLogger

            self._wandb_logger = WandbLogger(project=wandb.get("project"), name=wandb.get("name"))

    def get_loggers(self) -> list[Any]:
        return [self._wandb_logger] if self._wandb_logger else []

    # ------------------------------------------------------------------ pictures
    def save_image(self, filename: str, img: Any) -> str:
        """Save ``uint8`` or ``uint16`` pixels as PNG (or by suffix)."""
        from PIL import Image

        array = to_numpy(img)
        if array.dtype not in (np.uint8, np.uint16):
            raise ConfigError(
                "save_image takes uint8 or uint16 pixels", received=str(array.dtype), fix="Use save_rgb_image."
            )
        path = self.get_save_path(filename)
        with atomic_path(path) as temporary:
            Image.fromarray(array).save(temporary)
        return path

    def save_rgb_image(
        self,
        filename: str,
        img: Any,
        data_format: str = "HWC",
        data_range: tuple[float, float] = (0, 1),
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        return self._save_and_log(filename, rgb_image(img, data_format, data_range), name, step)

    def save_uv_image(
        self,
        filename: str,
        img: Any,
        data_format: str = "HWC",
        data_range: tuple[float, float] = (0, 1),
        cmap: str = "checkerboard",
    ) -> str:
        array = to_numpy(img)
        return self.save_image(
            filename, uv_image(array.transpose(1, 2, 0) if data_format == "CHW" else array, data_range, cmap)
        )

    def save_grayscale_image(
        self,
        filename: str,
        img: Any,
        data_range: tuple[float, float] | None = None,
        cmap: str | None = "jet",
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        return self._save_and_log(filename, grayscale_image(img, data_range, cmap), name, step)

    def save_image_grid(
        self,
        filename: str,
        imgs: Any,
        align: Any = "max",
        name: str | None = None,
        step: int | None = None,
        texts: list[str] | None = None,
    ) -> str:
        """Save a row (or list of rows) of ``{"type": rgb | uv | grayscale, "img", "kwargs"}`` items."""
        rows = imgs if isinstance(imgs[0], list) else [imgs]
        grid = image_grid([[self._grid_cell(item) for item in row] for row in rows], align)
        return self._save_and_log(filename, _with_texts(grid, texts), name, step)

    def save_cubemap(
        self, filename: str, img: Any, data_range: tuple[float, float] = (0, 1), rgba: bool = False
    ) -> str:
        """Save six faces ``[6, S, S, C]`` as one picture: -x, +y/+z/-y below each other, +x, -z in a cross."""
        faces = [rgb_image(face[..., : 4 if rgba else 3], "HWC", data_range)[..., :3] for face in to_numpy(img)]
        blank = np.zeros_like(faces[0])
        rows = [
            [blank, faces[2], blank, blank],
            [faces[1], faces[4], faces[0], faces[5]],
            [blank, faces[3], blank, blank],
        ]
        return self.save_image(filename, image_grid(rows))

    def save_img_sequence(
        self,
        filename: str,
        img_dir: str,
        matcher: str,
        save_format: str = "mp4",
        fps: int = 30,
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        """Make a video of the pictures in ``img_dir`` (below the save folder) that match ``matcher``.

        The first group of the regular expression is the frame number.
        """
        from PIL import Image

        if save_format not in ("mp4", "gif"):
            raise ConfigError("Unknown video format", received=save_format, fix="Use mp4 or gif.")
        target = filename if filename.endswith(f".{save_format}") else f"{filename}.{save_format}"
        folder = Path(self.get_save_dir()) / img_dir
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in matching_frames(folder, matcher)]
        path = str(write_video(self.get_save_path(target), frames, fps))
        if name and self._wandb_logger:
            import wandb

            self._wandb_logger.experiment.log(
                {name: wandb.Video(path, format=save_format), "trainer/global_step": step}
            )
        return path

    # ------------------------------------------------------------------ data and meshes
    def save_data(self, filename: str, data: Any) -> str:
        """Save an array as ``.npy`` or a dict of arrays as ``.npz``."""
        data = to_numpy(data)
        suffix = ".npz" if isinstance(data, dict) else ".npy"
        path = self.get_save_path(filename if filename.endswith(suffix) else filename + suffix)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            if isinstance(data, dict):
                np.savez(file, **data)
            else:
                np.save(file, data, allow_pickle=False)
        return path

    def save_state_dict(self, filename: str, data: dict[str, Any]) -> str:
        """Save tensors as safetensors (never pickle); the suffix is set accordingly."""
        from threestudio_redream.runtime.checkpoint import SUFFIX, write_checkpoint

        path = str(Path(self.get_save_path(filename)).with_suffix(SUFFIX))
        write_checkpoint(path, data)
        return path

    def save_json(self, filename: str, payload: Any) -> str:
        path = self.get_save_path(filename)
        atomic_write_text(path, json.dumps(to_numpy(payload), indent=2, default=_jsonable))
        return path

    def save_file(self, filename: str, src_path: str | Path) -> str:
        path = self.get_save_path(filename)
        with atomic_path(path) as temporary:
            shutil.copyfile(src_path, temporary)
        return path

    def save_mesh(self, filename: str, v_pos: Any, t_pos_idx: Any, v_tex: Any = None, t_tex_idx: Any = None) -> str:
        """Save an untextured triangle mesh by suffix (``.obj``, ``.ply``, ``.glb``, ``.stl``)."""
        import trimesh

        path = self.get_save_path(filename)
        mesh = trimesh.Trimesh(to_numpy(v_pos), to_numpy(t_pos_idx), process=False)
        with atomic_path(path) as temporary:
            mesh.export(temporary, file_type=Path(path).suffix.lstrip("."))
        return path

    def save_obj(self, filename: str, mesh: Any, **options: Any) -> str:
        """Save a :class:`threestudio_redream.meshing.TexturedMesh` as OBJ + MTL + PNG."""
        from threestudio_redream.meshing import write_obj

        path = self.get_save_path(filename if filename.endswith(".obj") else f"{filename}.obj")
        write_obj(path, mesh, **options)
        return path

    def save_glb(self, filename: str, mesh: Any, **options: Any) -> str:
        """Save a :class:`threestudio_redream.meshing.TexturedMesh` as one GLB file."""
        from threestudio_redream.meshing import write_glb

        path = self.get_save_path(filename if filename.endswith(".glb") else f"{filename}.glb")
        write_glb(path, mesh, **options)
        return path

    # ------------------------------------------------------------------ internals
    def _grid_cell(self, item: dict[str, Any]) -> NDArray[np.uint8]:
        kinds: dict[str, Callable[..., NDArray[np.uint8]]] = {
            "rgb": rgb_image,
            "uv": uv_image,
            "grayscale": grayscale_image,
        }
        kind = item.get("type", "rgb")
        if kind not in kinds:
            raise ConfigError("Unknown grid item", received=kind, fix=f"Use one of {', '.join(kinds)}.")
        kwargs = dict(item.get("kwargs") or {})
        if kind != "rgb":
            kwargs.pop("data_format", None)
        return kinds[kind](item["img"], **kwargs)

    def _save_and_log(self, filename: str, pixels: NDArray[np.uint8], name: str | None, step: int | None) -> str:
        path = self.save_image(filename, pixels)
        if name and self._wandb_logger:
            import wandb

            self._wandb_logger.experiment.log({name: wandb.Image(path), "trainer/global_step": step})
        return path


def _with_texts(grid: NDArray[np.uint8], texts: list[str] | None) -> NDArray[np.uint8]:
    if not texts:
        return grid
    from PIL import Image, ImageDraw

    picture = Image.fromarray(grid)
    draw = ImageDraw.Draw(picture)
    line = grid.shape[0] / len(texts)
    for i, text in enumerate(texts):
        draw.text((4, int(i * line) + 4), str(text), fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
