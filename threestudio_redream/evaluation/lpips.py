"""LPIPS (Zhang et al., CVPR 2018, version 0.1), without torchvision.

The distance of two pictures is that of their features in a network trained on ImageNet: unit vectors at every place of
five layers, squared differences weighed by learned heads, averaged over the picture and added up. Heads come with
torchmetrics; backbones are torchvision's files, from a path, from torch's hub folder, or downloaded into it. Where
neither is at hand there is ``mini``: the same measure on the features of the mini lab's judge with equal weights,
whose values compare only with each other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.index.integrity import hash_file

__all__ = ["LPIPS", "NETS", "open_lpips"]

#: File of each backbone; the digits at its end begin its sha256.
NETS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
URL = "https://download.pytorch.org/models/"
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Layers of torchvision's ``features``: (in, out, kernel, stride, padding) or a pooling's (kernel, stride).
_ALEX: list[tuple[int, ...]] = [(3, 64, 11, 4, 2), (3, 2), (64, 192, 5, 1, 2), (3, 2)]
_ALEX += [(192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
_VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)


class LPIPS(nn.Module):
    """The distance.

    Args:
        layers: stages of the backbone; each takes the features of the one before, the first ``[B, 3, H, W]``.
        heads: weights ``[C]`` of each stage's channels.
        name: of the backbone. smallest: side that pictures need.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, layers: Sequence[nn.Module], heads: Sequence[Tensor], name: str, smallest: int = 32) -> None:
        super().__init__()
        self.layers, self.name, self.smallest = nn.ModuleList(layers), name, smallest
        self.heads = nn.ParameterList(nn.Parameter(head.float(), requires_grad=False) for head in heads)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit features ``[B, C, h, w]`` of every stage.

        Raises:
            ConfigError: other shapes than ``[B, H, W, 3]``, too small a picture, values that are not in [0, 1].
        """
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[-1] != 3 or min(shape[1:3]) < self.smallest:
            raise ConfigError(
                "LPIPS wants pictures [B, H, W, 3]", received=shape, fix=f"Sides of {self.smallest} pixels or more."
            )
        if not bool(((images >= 0.0) & (images <= 1.0)).all()):
            raise ConfigError(
                "LPIPS wants values in [0, 1]",
                received=(float(images.min()), float(images.max())),
                fix="Clamp the pictures, and look for NaN.",
            )
        x = (2.0 * images.permute(0, 3, 1, 2).float() - 1.0 - self.shift) / self.scale
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x / (x.square().sum(1, keepdim=True).clamp(min=1e-20).sqrt() + 1e-10))
        return found

    def between(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
        """Distances ``[B]`` of features of :meth:`features`."""
        parts = [
            torch.einsum("bchw,c->bhw", (a - b).square(), head).mean((1, 2))
            for a, b, head in zip(one, other, self.heads)
        ]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances ``[B]`` of pictures ``[B, H, W, 3]`` in [0, 1]."""
        return self.between(self.features(one), self.features(other))


def open_lpips(net: str = "vgg", weights: Path | None = None) -> LPIPS:
    """The distance with a backbone.

    Args:
        net: ``vgg``, ``alex`` or ``mini``. weights: file of the backbone; None looks in torch's hub folder, and
            downloads it if it is not there.

    Raises:
        ConfigError: another net, no file and no network, or a file that is not the published one.
    """
    if net == "mini":
        return _mini()
    if net not in NETS:
        raise ConfigError("Unknown backbone of LPIPS", received=net, fix=f"Use {', '.join([*NETS, 'mini'])}.")
    path = weights if weights is not None else _published(net)
    layers = _layers(net)
    tensors = _read(path, NETS[net].rsplit("-", 1)[1].removesuffix(".pth"))
    state = {key: value for key, value in tensors.items() if key.startswith("features.")}
    try:
        nn.ModuleDict({"features": nn.Sequential(*layers)}).load_state_dict(state)
    except RuntimeError as cause:
        raise ConfigError(
            f"This is no backbone of LPIPS: {cause}", received=str(path), fix=f"Fetch {URL}{NETS[net]}."
        ) from cause
    return LPIPS(_stages(net, layers), _heads(net), net).eval()


def _layers(net: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    if net == "alex":
        for spec in _ALEX:
            layers += [nn.Conv2d(*spec), nn.ReLU()] if len(spec) == 5 else [nn.MaxPool2d(spec[0], spec[1])]
        return layers
    width = 3
    for wide in _VGG_WIDTHS:
        layers += [nn.Conv2d(width, wide, 3, 1, 1), nn.ReLU()] if wide else [nn.MaxPool2d(2, 2)]
        width = wide or width
    return layers


def _stages(net: str, layers: list[nn.Module]) -> list[nn.Module]:
    """The layers up to each place that LPIPS looks at."""
    ends = (2, 5, 8, 10, 12) if net == "alex" else (4, 9, 16, 23, 30)
    return [nn.Sequential(*layers[start:end]) for start, end in zip((0, *ends), ends)]


def _published(net: str) -> Path:
    """The backbone's file in torch's hub folder."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / NETS[net]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digits = NETS[net].rsplit("-", 1)[1].removesuffix(".pth")
        try:
            torch.hub.download_url_to_file(URL + NETS[net], str(path), hash_prefix=digits, progress=False)
        except (OSError, RuntimeError) as cause:
            raise ConfigError(
                f"The backbone of LPIPS is not here and cannot be fetched: {cause}",
                received=net,
                fix=f"Download {URL}{NETS[net]} and name it, or use net mini.",
            ) from cause
    return path


def _read(path: Path, digits: str) -> dict[str, Tensor]:
    """A published file of weights, once its checksum is right."""
    try:
        found = hash_file(path)
    except OSError as cause:
        raise ConfigError(
            f"The backbone of LPIPS cannot be read: {cause}", received=str(path), fix="Name the downloaded file."
        ) from cause
    if not found.startswith(digits):
        raise ConfigError(
            "The backbone of LPIPS is not the published one",
            received=f"{path}, sha256 {found[:8]}",
            fix=f"Its sha256 begins with {digits}; download it again.",
        )
    return _load(path)


def _load(path: Path) -> dict[str, Tensor]:
    """A file that others publish in torch's own format; nothing in it is run."""
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return tensors


def _heads(net: str) -> list[Tensor]:
    """The learned heads, as torchmetrics ships them."""
    found: Any = importlib.util.find_spec("torchmetrics")
    path = Path(found.origin).parent / "functional" / "image" / "lpips_models" / f"{net}.pth" if found else None
    if path is None or not path.is_file():
        raise ConfigError(
            "The heads of LPIPS come with torchmetrics, and are not there",
            received=str(path),
            fix="Install torchmetrics 1.x.",
        )
    tensors = _load(path)
    return [tensors[f"lin{number}.model.1.weight"].flatten() for number in range(5)]


class _Pixels(nn.Module):
    """From LPIPS's scaling back to what the judge wants, and its first layer."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
        return nn.functional.silu(self.stem((x * scale + shift) * 2.0))


def _mini() -> LPIPS:
    from threestudio_redream.mini.judge import Judge

    judge = Judge.load()
    widths = (judge.widths[0], *judge.widths)
    heads = [torch.full((width,), 1.0 / width) for width in widths]
    return LPIPS([_Pixels(judge.stem), *judge.blocks], heads, "mini").eval()
