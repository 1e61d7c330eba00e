"""``hf:`` encoders: a ``transformers.CLIPModel`` from a folder or the hub."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.retrieval.encoders.preprocess import Preprocessing
from threestudio_redream.retrieval.encoders.towers import Float, TowerEncoder
from threestudio_redream.retrieval.encoders.weights import digest, json_file, model_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from threestudio_redream.retrieval.encoders.light import LightText

__all__ = ["HfEncoder"]

log = logging.getLogger(__name__)


class HfEncoder(TowerEncoder):
    """CLIP of transformers.

    Args:
        name: what the user wrote. folder: with config, safetensors, tokenizer and preprocessing.
        light: embed texts with the numpy tower of :mod:`.light` where it can stand in, so that a short query needs
            neither torch nor transformers to be imported. The two agree to 1e-5.

    Raises:
        ConfigError: the folder is no complete CLIP model, or its preprocessing does not fit.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        light: bool = False,
    ) -> None:
        files = model_files(folder)
        self.folder, self.config = folder, json_file(folder / "config.json")
        try:
            if self.config["model_type"] != "clip":
                raise ConfigError(
                    "The model is no CLIP model", received=self.config["model_type"], fix="Use a CLIPModel folder."
                )
            dim, image_size = int(self.config["projection_dim"]), int(_vision(self.config)["image_size"])
        except (KeyError, TypeError, ValueError) as cause:
            if isinstance(cause, ConfigError):
                raise
            raise ConfigError(
                f"config.json of the model lacks a value: {cause}",
                received=str(folder),
                fix="Save the model again with CLIPModel.save_pretrained.",
            ) from cause
        prepare = Preprocessing.from_transformers(json_file(folder / "preprocessor_config.json"), image_size)
        fingerprint = digest(files, "hf-clip", prepare.to_json())
        super().__init__(name, dim, fingerprint, prepare, device=device, dtype=dtype, batch_size=batch_size)
        self._light = light and dtype == "float32"
        self._tower: LightText | None = None
        self._tokenizer: Any = None

    def encode_texts(self, texts: Sequence[str]) -> Float:
        """``[N, dim]`` float32 unit vectors. Texts longer than the model's context are cut off at its end."""
        if self._light:
            from threestudio_redream.retrieval.encoders.light import LightText, NotLightError

            try:
                self._tower = self._tower or LightText(self.folder, self.config)
            except NotLightError as reason:
                log.debug("%s: texts go through transformers: %s", self.name, reason)
                self._light = False
            else:
                return self._tower(list(texts), self.name)
        return super().encode_texts(texts)

    def _load(self) -> Any:
        from safetensors import SafetensorError
        from transformers import CLIPModel, CLIPTokenizerFast  # type: ignore[attr-defined]
        from transformers.utils import logging as chatter

        bars = chatter.is_progress_bar_enabled()
        chatter.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._tokenizer = CLIPTokenizerFast.from_pretrained(self.folder, local_files_only=True)
                return CLIPModel.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
            except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as cause:
                raise ConfigError(
                    f"The CLIP model cannot be loaded: {str(cause).splitlines()[0] if str(cause) else cause!r}",
                    received=str(self.folder),
                    fix="Download it again, or save it again with CLIPModel.save_pretrained.",
                ) from cause
            finally:
                if bars:
                    chatter.enable_progress_bar()

    def _text_features(self, model: Any, texts: list[str]) -> Tensor:
        length = model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return _plain(
            model.get_text_features(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            )
        )

    def _image_features(self, model: Any, pixels: Tensor) -> Tensor:
        return _plain(model.get_image_features(pixel_values=pixels))


def _vision(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the image tower; configurations leave out what is CLIP's default."""
    return {"image_size": 224, **config["vision_config"]}


def _plain(output: Any) -> Tensor:
    """The releases of transformers differ in what ``get_*_features`` returns."""
    return output.pooler_output if hasattr(output, "pooler_output") else output
