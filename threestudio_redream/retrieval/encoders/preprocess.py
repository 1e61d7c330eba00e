"""How pictures are brought to a model: read from the model's own files, stored in an index, compared, never guessed.

Works without torchvision and gives the values of the ``CLIPImageProcessor`` of transformers: pictures are quantised to
8 bits, resized by Pillow, cropped about their centre, and normalised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threestudio_redream.errors import ConfigError

__all__ = ["Preprocessing"]

#: Numbers of ``PIL.Image.Resampling``.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
_MAX_SIDE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """One way of preparing pictures.

    Attributes:
        size: side of the square that the model sees, in pixels.
        resize: ``shortest``: the shorter side becomes ``resize_to``, then the centre is cut out; ``squash``: both sides
            become ``size``; ``none``: pictures must have the right size.
        resize_to: pixels, at least ``size``.
        interpolation: ``bicubic``, ``bilinear``, ... as Pillow defines them.
        crop: which way an odd remainder is cut: ``floor`` (transformers) or ``round`` (torchvision).
        mean, std: per channel, for values in [0, 1].
    """

    size: int
    resize: str
    resize_to: int
    interpolation: str
    crop: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        right = (
            0 < self.size <= self.resize_to <= _MAX_SIDE
            and self.resize in ("shortest", "squash", "none")
            and self.interpolation in _RESAMPLING.values()
            and self.crop in ("floor", "round")
            and len(self.mean) == len(self.std) == 3
            and all(math.isfinite(value) for value in self.mean)
            and all(math.isfinite(value) and value > 0.0 for value in self.std)
        )
        if not right:
            raise ConfigError(
                "The preprocessing of the model makes no sense",
                received=asdict(self),
                fix="Restore the preprocessor_config.json or open_clip_config.json that came with the model.",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in an index."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_transformers(values: Mapping[str, Any], image_size: int) -> Preprocessing:
        """From the content of ``preprocessor_config.json``.

        Args:
            image_size: side that the model wants, from its own configuration.

        Raises:
            ConfigError: a value that decides about the pixels is missing, is of a kind that CLIP does not use, or does
                not fit the model.
        """
        kind = values.get("image_processor_type", values.get("feature_extractor_type", "CLIPImageProcessor"))
        if kind not in _PROCESSORS:
            raise _unfit("is for another family of models", kind)
        flags = {name: values.get(name, True) for name in ("do_rescale", "do_normalize", "do_resize", "do_center_crop")}
        if not (flags["do_rescale"] and flags["do_normalize"]):
            raise _unfit("switches rescaling or normalising off", flags)
        if abs(float(values.get("rescale_factor", 1 / 255)) * 255 - 1.0) > 1e-6:
            raise _unfit("has an unusual rescale_factor", values["rescale_factor"])
        missing = [name for name in ("size", "resample", "image_mean", "image_std") if name not in values]
        if missing:
            raise _unfit("lacks values that it must state", missing)
        try:
            size = values["size"]
            # A bare number is the shorter side: so said CLIP's first feature extractor.
            shortest = size if isinstance(size, int) else size.get("shortest_edge")
            resize_to = shortest if shortest is not None else size["height"]
            resize = "shortest" if shortest is not None else "squash"
            crop = values.get("crop_size", resize_to) if flags["do_center_crop"] else resize_to
            crop_sides = {crop} if isinstance(crop, int) else {crop["height"], crop["width"]}
            sides = crop_sides if shortest is not None else crop_sides | {size["height"], size["width"]}
            if not flags["do_resize"]:
                resize, resize_to, sides = "none", image_size, {image_size}
            if sides != {image_size}:
                raise _unfit(f"gives pictures of another size than the {image_size} px of the model", sorted(sides))
            return Preprocessing(
                size=image_size,
                resize=resize,
                resize_to=int(resize_to),
                interpolation=_RESAMPLING[values["resample"]],
                crop="floor",
                mean=_triple(values["image_mean"]),
                std=_triple(values["image_std"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            if isinstance(cause, ConfigError):
                raise
            raise _unfit("cannot be understood", {name: values.get(name) for name in ("size", "resample")}) from cause

    @staticmethod
    def from_openclip(values: Mapping[str, Any]) -> Preprocessing:
        """From open_clip's ``preprocess_cfg``.

        Raises:
            ConfigError: a way of resizing that is not supported, or a value is missing.
        """
        try:
            sides = values["size"] if isinstance(values["size"], (list, tuple)) else (values["size"],)
            mode = values["resize_mode"]
            if len(set(sides)) != 1 or mode not in ("shortest", "squash"):
                raise _unfit("wants pictures that are not square, or letter boxes", (list(sides), mode))
            side = int(sides[0])
            return Preprocessing(
                side, mode, side, str(values["interpolation"]), "round", _triple(values["mean"]), _triple(values["std"])
            )
        except (KeyError, TypeError, ValueError) as cause:
            if isinstance(cause, ConfigError):
                raise
            raise _unfit("cannot be understood", dict(values)) from cause

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepare pictures.

        Convention: a grey of 0.5 is 128 of 255; with mean 0.5 and std 0.5 it becomes 1/255 = 0.0039.

        Args:
            images: ``[N, H, W, 3]`` in [0, 1], sRGB-encoded, row 0 at the top; float, or uint8 from 0 to 255.

        Returns:
            ``[N, 3, size, size]`` float32.

        Raises:
            ConfigError: another shape, or not the size where nothing is resized.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:3]:
            raise ConfigError("Pictures must be [N, H, W, 3]", received=images.shape, fix="Put the channels last.")
        if images.dtype != np.uint8:
            images = np.rint(np.clip(np.nan_to_num(images), 0.0, 1.0) * 255.0).astype(np.uint8)
        out = np.zeros((len(images), 3, self.size, self.size), np.float32)
        scale = np.asarray(self.std, np.float64) * 255.0
        shift = np.asarray(self.mean, np.float64) * 255.0
        for index, image in enumerate(images):
            out[index] = ((self._shape(image) - shift) / scale).transpose(2, 0, 1)
        return out

    def _shape(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``[H, W, 3]`` to ``[size, size, 3]``."""
        height, width = image.shape[:2]
        if self.resize == "squash":
            target = (self.size, self.size)
        elif self.resize == "shortest":
            short, long = min(height, width), max(height, width)
            grown = int(self.resize_to * long / short)
            target = (self.resize_to, grown) if height <= width else (grown, self.resize_to)
        else:
            target = (height, width)
        if max(target) > 16 * _MAX_SIDE:
            raise ConfigError("A picture is too narrow", received=(height, width), fix="Crop it first.")
        if target != (height, width):
            from PIL import Image

            method = Image.Resampling[self.interpolation.upper()]
            image = np.asarray(Image.fromarray(image).resize((target[1], target[0]), method))
        if min(target) < self.size or (self.resize == "none" and target != (self.size, self.size)):
            raise ConfigError(
                f"The model wants pictures of {self.size} px and does not resize",
                received=(height, width),
                fix="Render them at that size.",
            )
        top, left = (self._margin(side) for side in target)
        return image[top : top + self.size, left : left + self.size]

    def _margin(self, side: int) -> int:
        spare = side - self.size
        return spare // 2 if self.crop == "floor" else round(spare / 2.0)


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _unfit(problem: str, received: Any) -> ConfigError:
    return ConfigError(
        f"The preprocessing of the model {problem}",
        received=received,
        fix="Use a CLIP model with the preprocessor_config.json (transformers) or open_clip_config.json it came with.",
    )
