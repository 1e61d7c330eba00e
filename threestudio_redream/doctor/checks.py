"""Checks that use a component for real, in a fraction of a second. They run in the doctor's child process.

A check returns a short remark for the report, or a dictionary with ``detail`` and further facts. Whatever
it raises is the diagnosis "broken".
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

__all__ = ["CHECKS"]

_TRIANGLE = ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0, 1, 2]])


def _torch() -> dict[str, Any]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            devices.append(f"cuda:{index} {card.name}, {card.total_memory / 2**30:.0f} GiB")
        remark = f"CUDA {torch.version.cuda}"
    elif torch.version.cuda:
        remark = f"CUDA {torch.version.cuda} build, but no usable GPU or driver"
    else:
        remark = "CPU build"
    if torch.backends.mps.is_available():
        devices.append("mps")
        remark = "Metal (mps)"
    leaf = torch.ones(3, requires_grad=True)
    (leaf * leaf).sum().backward()
    if leaf.grad is None or leaf.grad.tolist() != [2.0, 2.0, 2.0]:
        raise RuntimeError(f"a gradient came out wrong: {leaf.grad}")
    return {"detail": remark, "devices": devices, "threads": torch.get_num_threads()}


def _numba() -> str:
    import numba
    import numpy as np

    @numba.njit
    def total(values):
        result = 0.0
        for value in values:
            result += value
        return result

    started = time.perf_counter()
    if total(np.arange(4.0)) != 6.0:
        raise RuntimeError("a compiled kernel gave a wrong sum")
    return f"compiles ({time.perf_counter() - started:.1f} s)"


def _safetensors() -> str:
    import numpy as np
    from safetensors.numpy import load, save

    if load(save({"x": np.arange(3)}))["x"].tolist() != [0, 1, 2]:
        raise RuntimeError("a tensor changed on its way through safetensors")
    return ""


def _omegaconf() -> str:
    from omegaconf import OmegaConf

    if OmegaConf.create({"a": 1, "b": "${a}"}).b != 1:
        raise RuntimeError("an interpolation did not resolve")
    return ""


def _draco() -> str:
    import DracoPy
    import numpy as np

    points, faces = np.array(_TRIANGLE[0]), np.array(_TRIANGLE[1])
    if len(DracoPy.decode(DracoPy.encode(points, faces)).faces) != 1:
        raise RuntimeError("a triangle got lost on its way through Draco")
    return ""


def _pillow() -> str:
    from PIL import features

    lacking = [name for name in ("jpg", "zlib", "webp") if not features.check(name)]
    if "jpg" in lacking or "zlib" in lacking:
        raise RuntimeError(f"built without {', '.join(lacking)}; PNG and JPEG textures need both")
    return "no WebP" if lacking else ""


def _marching_cubes() -> str:
    import numpy as np
    from skimage.measure import marching_cubes

    volume = np.zeros((3, 3, 3), dtype=np.float32)
    volume[1, 1, 1] = 1.0
    if len(marching_cubes(volume, 0.5)[1]) != 8:  # one voxel becomes an octahedron
        raise RuntimeError("marching cubes found a wrong surface")
    return ""


def _xatlas() -> str:
    import numpy as np
    import xatlas

    mapping, _, _ = xatlas.parametrize(np.array(_TRIANGLE[0], np.float32), np.array(_TRIANGLE[1], np.uint32))
    if len(mapping) != 3:
        raise RuntimeError(f"unwrapping a triangle gave {len(mapping)} vertices")
    return ""


def _h264() -> str:
    import av

    return av.codec.Codec("libx264", "w").name


def _moderngl() -> str:
    import moderngl

    context = moderngl.create_context(standalone=True, backend="egl")
    return str(context.info["GL_RENDERER"])


def _torchvision() -> str:
    from threestudio_redream.runtime.torchvision_shim import ensure_torchvision

    patched = ensure_torchvision() == "patched"
    return "made for another build of torch: works here, without its compiled operators" if patched else ""


def _has(module: str, name: str) -> Callable[[], str]:
    """A check that a submodule, which the plain import leaves alone, imports and holds ``name``."""

    def check() -> str:
        getattr(importlib.import_module(module), name)
        return ""

    return check


CHECKS: dict[str, Callable[[], str | dict[str, Any]]] = {
    "clip": _has("transformers", "CLIPModel"),
    "diffusers": _has("diffusers", "UNet2DConditionModel"),
    "draco": _draco,
    "h264": _h264,
    "marching_cubes": _marching_cubes,
    "moderngl": _moderngl,
    "numba": _numba,
    "omegaconf": _omegaconf,
    "peft": _has("peft", "LoraConfig"),
    "pillow": _pillow,
    "safetensors": _safetensors,
    "tensorboard": _has("torch.utils.tensorboard", "SummaryWriter"),
    "torch": _torch,
    "torchvision": _torchvision,
    "xatlas": _xatlas,
}
