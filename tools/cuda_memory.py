"""What the full-scale configurations and memory presets need on a GPU, computed on a CPU by counting tensors.

    python -m tools.cuda_memory

No GPU is asked. The diffusion model runs on fake tensors in half precision, in torch's bookkeeping alone; the field is
rendered for real at two small sizes, as it is after the first prunings, and extended to the last resolution by the
number of rays. Each stage counts the bytes of the tensors that live at once. What the count leaves out is in
``OVERHEAD``, and is an assumption. The raw figures go to ``benchmarks/results/cuda_memory_estimate.json``.
"""

from __future__ import annotations

import logging
import os
import statistics
import weakref
from collections.abc import Callable, Iterable, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks._common import ROOT, environment, write_results

__all__ = ["Count", "Model", "count", "estimate", "field_figures"]

log = logging.getLogger("cuda-memory")

GIB = 2**30
#: CUDA context, libraries' workspaces, and gaps between blocks: a constant, and a share of what was counted.
OVERHEAD = (0.8, 0.1)
PRESETS = ("", "24g", "12g", "8g")
PROBE_PICTURES = 24
CAMERAS = 8
SIDES = (32, 64)


class Count(TorchDispatchMode):
    """Bytes of tensors made within it: ``live`` now and at the ``peak``. Each storage counts once.

    Args:
        known: tensors that were there before. If given, inputs count as well, for what comes out of other libraries.
    """

    def __init__(self, known: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, int] = {}
        self._inputs = known is not None
        self._known = {tensor.untyped_storage()._cdata for tensor in known or ()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((out, args) if self._inputs else out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in self._known:
            return
        self._seen[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.live -= self._seen.pop(key, 0)


def count(call: Callable[[], Any]) -> float:
    """GiB at the peak of a call, beside what was there before. Nothing is computed: tensors are fake."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), Count() as counting:
        call()
    return counting.peak / GIB


# ------------------------------------------------------------------ the diffusion model
class Model:
    """A Stable Diffusion 2.1-base in half precision, with two adapters and a text encoder in single precision."""

    def __init__(self) -> None:
        from diffusers import DDPMScheduler
        from transformers import CLIPTextConfig, CLIPTextModel

        from threestudio_redream.guidance.adapters import SwitchedUNet
        from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
        from tools.full_size_layout import TEXT, build_unet, build_vae

        torch.set_default_dtype(torch.bfloat16)  # as large as float16, and a CPU can add it
        unet, vae = build_unet().eval(), build_vae().eval()
        torch.set_default_dtype(torch.float32)
        self.text: Any = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
        for part in (unet, vae, self.text):
            part.requires_grad_(False)
        self.width = TEXT["hidden_size"]
        self.diffusion = LatentDiffusion(vae, unet, DDPMScheduler(beta_schedule="scaled_linear"))
        self.switched = SwitchedUNet(unet)
        for name in ("particles", "views"):
            self.switched.add(name)

    def figures(self, memory: Mapping[str, Any]) -> dict[str, float]:
        """GiB at the peak of each thing that is asked of it, under these settings of ``system.guidance.memory``."""
        from threestudio_redream.guidance.memory import apply_memory

        unet, vae = self.diffusion.unet, self.diffusion.vae
        for part in (unet, vae):
            part.disable_gradient_checkpointing()
        vae.disable_slicing()
        apply_memory(self.diffusion, memory)
        return {
            "weights": _gib(unet) + _gib(vae),
            "text_encoder": _gib(self.text),
            "scores": count(lambda: self._ask(6, learn=False)),
            "lora": count(lambda: self._ask(1, learn=True)),
            "encode": count(lambda: self._encode(1, learn=True)),
            "adaptation_lora": count(lambda: self._ask(4, learn=True)),
            "adaptation_texts": count(lambda: self._read(4)),
            "adaptation_encode": count(lambda: self._encode(4, learn=False)),
            "probe_encode": count(lambda: self._encode(PROBE_PICTURES, learn=False)),
            "probe_scores": count(lambda: self._ask(PROBE_PICTURES, learn=False)),
        }

    def _ask(self, pictures: int, *, learn: bool) -> None:
        noisy, context = torch.randn(pictures, 4, 64, 64), torch.randn(pictures, 77, self.width)
        with torch.set_grad_enabled(learn), self.switched.using("particles"):
            output = self.diffusion.predict(noisy, torch.full((pictures,), 500), context)
        if learn:
            output.square().mean().backward()

    def _encode(self, pictures: int, *, learn: bool) -> None:
        with torch.set_grad_enabled(learn):
            latents = self.diffusion.encode(torch.rand(pictures, 512, 512, 3, requires_grad=learn))
        if learn:
            latents.square().sum().backward()

    def _read(self, texts: int) -> None:
        learned = torch.zeros(self.width, requires_grad=True)
        hook = self.text.get_input_embeddings().register_forward_hook(lambda module, ids, found: found + learned)
        try:
            self.text(torch.zeros(texts, 77, dtype=torch.long))[0].sum().backward()
        finally:
            hook.remove()


def _gib(module: torch.nn.Module) -> float:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters()) / GIB


# ------------------------------------------------------------------ the field
def field_figures(config: Any, rays: int) -> dict[str, float]:
    """GiB of a training render with so many rays, and of what the optimiser keeps of the field.

    The field is the initial blob after the first prunings. A solid scene needs less: most of its samples are hidden.
    """
    from threestudio_redream.runtime.device import set_device
    from threestudio_redream.runtime.registry import find

    set_device("cpu")
    torch.manual_seed(0)
    system = config.system
    geometry, material, background = (
        find(system[f"{part}_type"])(system[part]) for part in ("geometry", "material", "background")
    )
    renderer = find(system["renderer_type"])(
        system["renderer"], geometry=geometry, material=material, background=background
    ).train()
    for step in (0, 16, 32, 48):
        renderer.update_step(0, step)
    known = [tensor for part in (geometry, background, renderer) for tensor in part.state_dict().values()]
    peaks: dict[int, float] = {}
    samples = 0.0
    for side in SIDES:
        small = {"width": side, "height": side, "batch_size": 1, "resolution_milestones": []}
        data = find(config.data_type)({**config.data, **small})
        data.setup("fit")
        found = []
        for step in range(CAMERAS):
            batch = data.train_dataset.collate([{"step": step}])
            with Count([*known, *(value for value in batch.values() if isinstance(value, Tensor))]) as counting:
                out = renderer(**batch)
                out["comp_rgb"].square().mean().backward()
            found.append(counting.peak / GIB)
            samples = max(samples, out["weights"].numel() / side**2)
            del out, batch
            for part in (geometry, background):
                part.zero_grad()
        peaks[side] = statistics.mean(found)
    few, many = SIDES
    # The gradient of the table is as large for few rays as for many.
    by_ray = (peaks[many] - peaks[few]) / (many**2 - few**2)
    return {
        "most_samples_per_ray": round(samples, 1),
        "render": peaks[many] + by_ray * (rays - many**2),
        "state": 3 * (_gib(geometry) + _gib(background)),  # the weights and the optimiser's two moments
    }


def estimate(model: Model, name: str, preset: str) -> dict[str, Any]:
    """Stages of a configuration in GiB, and the larger of their sums with the overhead."""
    from threestudio_redream.runtime.config import load_config

    folder = ROOT / "custom_configs"
    files = [folder / f"{name}.yaml", *([folder / "memory" / f"{preset}.yaml"] if preset else [])]
    with TemporaryDirectory() as scratch:
        config = load_config(*files, cli_args=["system.prompt_processor.prompt=x", f"exp_root_dir={scratch}"])
    width, height = config.data["width"][-1], config.data["height"][-1]
    asked = model.figures(config.system["guidance"].get("memory", {}))
    field = field_figures(config, width * height)
    fixed = asked["weights"] + field["state"]
    # The graphs of the render and of the encoder wait for the backward pass while the LoRA is trained.
    step = fixed + field["render"] + asked["encode"] + max(asked["lora"], asked["scores"])
    adapting = (
        fixed
        + asked["text_encoder"]
        + max(
            asked["adaptation_lora"] + asked["adaptation_texts"],
            asked["adaptation_encode"],
            asked["probe_encode"],
            asked["probe_scores"],
        )
    )
    constant, share = OVERHEAD
    stages = {"step": step, "adaptation": adapting} if "adaptation" in config.system else {"step": step}
    return {
        "pixels": [width, height],
        "samples_along_a_ray": config.system["renderer"]["num_samples_per_ray"],
        "parts": {key: round(value, 2) for key, value in {**asked, **field}.items()},
        "stages": {key: round(value, 1) for key, value in stages.items()},
        "needed_gib": round(constant + (1 + share) * max(stages.values()), 1),
    }


def savings(model: Model) -> dict[str, dict[str, float]]:
    """What the model needs under each setting of ``system.guidance.memory`` alone. Leaves the last one on."""
    settings: dict[str, dict[str, Any]] = {"none": {}}
    settings |= {key: {key: True} for key in ("unet_checkpointing", "vae_checkpointing", "vae_slicing")}
    settings["attention: sliced"] = {"attention": "sliced"}  # last: it cannot be taken back
    return {
        name: {key: round(value, 2) for key, value in model.figures(memory).items()}
        for name, memory in settings.items()
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = Model()
    rows = []
    for kernels in ("numba", "torch"):
        os.environ["REDREAM_KERNELS"] = kernels
        for preset in PRESETS:
            row = {"encoding": kernels, "preset": preset or "none", **estimate(model, "redream-sd21", preset)}
            rows.append(row)
            log.info("%s", {key: value for key, value in row.items() if key != "parts"})
    notes = {
        "overhead": {"gib": OVERHEAD[0], "share": OVERHEAD[1], "basis": "assumed"},
        "encoding": "numba stands for tiny-cuda-nn, which keeps as little; torch is the reference that runs without it",
    }
    where = environment(("torch", "diffusers", "peft"))
    figures = {"environment": where, **notes, "rows": rows, "settings": savings(model)}
    path = write_results("cuda_memory_estimate", figures)
    log.info("Wrote %s", path)


if __name__ == "__main__":
    main()
