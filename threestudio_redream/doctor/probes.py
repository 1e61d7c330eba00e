"""The components that ``redream doctor`` tries, as a table. A new dependency is one more row."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

from threestudio_redream.installed import keep_torch

__all__ = ["CAPABILITIES", "PROBES", "Capability", "Probe"]


@dataclass(frozen=True)
class Probe:
    """One component.

    Attributes:
        requirement: pip requirement, its name and its floor: ``"numba>=0.60"``. Older is reported as broken.
        module: name that is imported.
        purpose: what the project uses it for.
        required: part of the base install; without it the doctor's verdict is bad.
        batch: probes of one batch share a child process, and with it the cost of common imports. Components
            known to crash or to spoil others get a batch of their own.
        check: function of :mod:`threestudio_redream.doctor.checks` that uses the component for real; without
            one, an import is the whole test.
        install: pip command that installs it, where ``install REQUIREMENT`` would not.
        repair: pip command that cures it when broken, where a reinstall would not.
        advice: what to do when it is missing, where no pip command helps.
        licence: of an optional component, known before it is installed. That of an installed one is on record with it.
    """

    requirement: str
    module: str
    purpose: str
    required: bool = False
    batch: str = "light"
    check: str = ""
    install: str = ""
    repair: str = ""
    advice: str = ""
    licence: str = ""

    @property
    def name(self) -> str:
        """Name of the distribution: the requirement without its version."""
        return self.requirement.partition(">=")[0]

    @property
    def floor(self) -> str:
        """Lowest version that works, or an empty string."""
        return self.requirement.partition(">=")[2]


# PyPI's Linux wheel brings several GB of CUDA libraries, which only a machine with a GPU should get.
_WANTS_PYPI_TORCH = sys.platform == "darwin" or shutil.which("nvidia-smi") is not None
_TORCH_INSTALL = "install torch" + ("" if _WANTS_PYPI_TORCH else " --index-url https://download.pytorch.org/whl/cpu")


def _base(requirement: str, module: str, purpose: str, batch: str = "light", **more: str) -> Probe:
    return Probe(requirement, module, purpose, required=True, batch=batch, **more)


PROBES: tuple[Probe, ...] = (
    _base("numpy>=1.26", "numpy", "arrays"),
    _base("torch>=2.4", "torch", "tensors and gradients", "torch", check="torch", install=_TORCH_INSTALL),
    _base("pytorch-lightning>=2.4", "pytorch_lightning", "training loop", "torch"),
    _base("tensorboard>=2.14", "tensorboard", "training curves", "torch", check="tensorboard"),
    _base("safetensors>=0.4.5", "safetensors", "checkpoints", check="safetensors"),
    _base("omegaconf>=2.3", "omegaconf", "configuration", check="omegaconf"),
    _base("jaxtyping>=0.2.28", "jaxtyping", "array shapes in signatures"),
    _base("accelerate>=1.0", "accelerate", "loading of large models", "hub"),
    _base("diffusers>=0.33", "diffusers", "2D diffusion priors", "hub", check="diffusers"),
    _base("transformers>=4.50", "transformers", "text encoders, CLIP", "hub", check="clip"),
    _base("peft>=0.15", "peft", "LoRA adapters", "hub", check="peft"),
    _base("numba>=0.60", "numba", "fast CPU kernels", check="numba"),
    _base("scipy>=1.12", "scipy", "nearest neighbours, images"),
    _base("trimesh>=4.6", "trimesh", "3D files"),
    _base("DracoPy>=1.5", "DracoPy", "Draco-compressed glTF", check="draco"),
    _base("pillow>=10.3", "PIL", "textures and pictures", check="pillow"),
    _base("scikit-image>=0.22", "skimage", "marching cubes", check="marching_cubes"),
    _base("fast-simplification>=0.1.7", "fast_simplification", "mesh decimation"),
    _base("xatlas>=0.0.11", "xatlas", "texture charts", check="xatlas"),
    _base("av>=12", "av", "turntable videos", check="h264"),
    _base("typer>=0.16", "typer", "the redream command"),
    _base("rich>=13", "rich", "progress and tables"),
    Probe("moderngl>=5.10", "moderngl", "asset renders on a GPU", batch="moderngl", check="moderngl", licence="MIT"),
    Probe("nerfacc>=0.5.3", "nerfacc", "volume rendering on CUDA", batch="nerfacc", licence="MIT"),
    Probe(
        "tinycudann",
        "tinycudann",
        "hash grid on CUDA",
        batch="tinycudann",
        licence="BSD-3-Clause",
        install="install --no-build-isolation 'git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch'",
    ),
    Probe(
        "open_clip_torch>=3.3",
        "open_clip",
        "OpenCLIP encoders",
        batch="open_clip",
        licence="MIT",
        install=f"install 'open_clip_torch>=3.3'{keep_torch()}",
        repair="install --force-reinstall --no-deps 'open_clip_torch>=3.3'",
    ),
    Probe("faiss-cpu>=1.9", "faiss", "search in large indexes", batch="faiss", licence="MIT"),
    Probe("scann>=1.4", "scann", "search in large indexes", batch="scann", licence="Apache-2.0"),
    Probe("objaverse>=0.1.7", "objaverse", "Objaverse's own cache", batch="objaverse", licence="Apache-2.0"),
    Probe("submitit>=1.5", "submitit", "sweeps and index builds on Slurm", batch="submitit", licence="MIT"),
    Probe("ray>=2.30", "ray", "sweeps and index builds on Ray", batch="ray", licence="Apache-2.0"),
    Probe(
        "torchvision",
        "torchvision",
        "needed by open_clip only",
        batch="torchvision",
        licence="BSD-3-Clause",
        check="torchvision",
        repair="uninstall -y torchvision",
        advice="nothing to do",
    ),
    Probe(
        "threestudio",
        "threestudio",
        "upstream host of this extension",
        batch="threestudio",
        licence="Apache-2.0",
        advice="optional: launch.py here does not need it",
    ),
)


@dataclass(frozen=True)
class Capability:
    """Something a user wants to do.

    Attributes:
        needs: names of the probes that have to be found.
        device: torch device types of which one has to be there; empty for any.
    """

    name: str
    needs: tuple[str, ...]
    device: tuple[str, ...] = ()


_RENDER = ("numpy", "numba", "trimesh", "pillow")
_TRAIN = ("torch", "pytorch-lightning", "omegaconf", "safetensors", "tensorboard", *_RENDER)
_MODELS = ("torch", "safetensors", "accelerate", "diffusers", "peft", "transformers")
_EXPORT = ("numpy", "trimesh", "pillow", "scikit-image", "xatlas")
_REQUIRED = tuple(probe.name for probe in PROBES if probe.required)

CAPABILITIES: tuple[Capability, ...] = (
    Capability("text to 3D (launch.py --config custom_configs/redream.yaml)", _REQUIRED),
    Capability("load and render 3D files (redream render)", _RENDER),
    Capability("fit a field to a mesh (launch.py)", _TRAIN),
    Capability("mini lab models (diffusers, transformers)", _MODELS),
    Capability("export a textured GLB", _EXPORT),
    Capability("turntable video", ("av",)),
    Capability("train on a GPU", _TRAIN, device=("cuda", "mps")),
    Capability("run inside upstream threestudio", (*_REQUIRED, "threestudio"), device=("cuda",)),
)
