"""Encoders: preprocessing equal to transformers', numpy text tower equal to torch, fingerprints, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from threestudio_redream.errors import ConfigError, MissingExtraError
from threestudio_redream.hub import HubOfflineError
from threestudio_redream.retrieval.encoders import Preprocessing, dtype_error, open_encoder
from threestudio_redream.retrieval.encoders.light import LightText, NotLightError
from threestudio_redream.retrieval.encoders.weights import digest, find_model, json_file, model_files

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [
    "a red cat",
    "the back view of a Crimson   CAT!",
    "",
    "a zqxj wombat in a studio, side view -- naïve 漢字 🦊",
    "it's the dog's house; don't",
    "a photo of " * 20,
]
OPENAI = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with smooth parts and hard edges."""
    rng = np.random.default_rng(seed)
    images = rng.random((count, height, width, 3)).astype(np.float32)
    images[:, : height // 2] = np.linspace(0, 1, width)[None, None, :, None]
    images[:, height // 4 : height // 3, : width // 2] = (1.0, 0.0, 0.3)
    return images


# --- preprocessing --------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 97), (31, 31), (100, 61), (75, 130), (64, 65)])
@pytest.mark.parametrize("resample", [2, 3])
def test_preprocessing_equals_that_of_transformers(height: int, width: int, resample: int) -> None:
    from transformers.models.clip import CLIPImageProcessorPil

    values = {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
        "resample": resample,
        "image_mean": [0.48, 0.45, 0.40],
        "image_std": [0.26, 0.27, 0.28],
    }
    images = pictures(2, height, width)
    eight_bit = np.rint(images * 255).astype(np.uint8)
    theirs = CLIPImageProcessorPil(**values)(list(eight_bit), return_tensors="np")["pixel_values"]
    ours = Preprocessing.from_transformers(values, 64)(images)
    assert ours.shape == (2, 3, 64, 64)
    assert np.abs(ours - theirs).max() < 1e-5  # far below 1/255 of the range
    np.testing.assert_array_equal(ours, Preprocessing.from_transformers(values, 64)(eight_bit))


def test_preprocessing_of_the_first_clip_files() -> None:
    prepare = Preprocessing.from_transformers(OPENAI, 224)
    assert (prepare.size, prepare.resize, prepare.resize_to, prepare.interpolation) == (224, "shortest", 224, "bicubic")
    assert prepare.to_json()["mean"] == OPENAI["image_mean"]
    json.dumps(prepare.to_json())
    other = Preprocessing.from_transformers({**OPENAI, "size": {"shortest_edge": 256}}, 224)
    assert other.resize_to == 256
    assert other(pictures(1, 300, 256)).shape == (1, 3, 224, 224)


def test_grey_is_where_the_documentation_says() -> None:
    prepare = Preprocessing.from_transformers({**OPENAI, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 224)
    grey = np.full((1, 224, 224, 3), 0.5, np.float32)
    np.testing.assert_allclose(prepare(grey), 1 / 255, atol=1e-6)
    assert np.isfinite(prepare(np.full((1, 224, 224, 3), np.nan))).all()


def test_squashing_and_no_resizing() -> None:
    values = {**OPENAI, "size": {"height": 64, "width": 64}, "crop_size": {"height": 64, "width": 64}}
    squash = Preprocessing.from_transformers(values, 64)
    assert squash.resize == "squash"
    assert squash(pictures(1, 50, 90)).shape == (1, 3, 64, 64)
    fixed = Preprocessing.from_transformers({**OPENAI, "do_resize": False, "crop_size": 64}, 64)
    assert fixed(pictures(1, 64, 64)).shape == (1, 3, 64, 64)
    with pytest.raises(ConfigError, match="does not resize"):
        fixed(pictures(1, 65, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_extractor_type": "SiglipImageProcessor"}, "another family"),
        ({"do_rescale": False}, "rescaling or normalising off"),
        ({"do_normalize": False}, "rescaling or normalising off"),
        ({"rescale_factor": 0.5}, "rescale_factor"),
        ({"resample": None}, "cannot be understood"),
        ({"resample": 17}, "cannot be understood"),
        ({"crop_size": 200}, "another size"),
        ({"size": {"longest_edge": 224}}, "cannot be understood"),
        ({"image_mean": [0.5, 0.5]}, "cannot be understood"),
        ({"image_std": [0.5, 0.5, 0.0]}, "makes no sense"),
        ({"image_std": [0.5, 0.5, float("nan")]}, "makes no sense"),
    ],
)
def test_preprocessing_is_never_guessed(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Preprocessing.from_transformers({**OPENAI, **change}, 224)
    assert caught.value.fix
    assert caught.value.received is not ...


@pytest.mark.parametrize("name", ["size", "resample", "image_mean", "image_std"])
def test_a_missing_value_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lacks values") as caught:
        Preprocessing.from_transformers({key: value for key, value in OPENAI.items() if key != name}, 224)
    assert caught.value.received == [name]


def test_preprocessing_of_open_clip() -> None:
    values = {"size": (64, 64), "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    prepare = Preprocessing.from_openclip({**values, "resize_mode": "shortest"})
    assert (prepare.size, prepare.crop) == (64, "round")
    # torchvision cuts 1.5 pixels as 2, transformers as 1
    ramp = np.tile(np.arange(67, dtype=np.uint8)[None, None, :, None], (1, 64, 1, 3))
    assert prepare(ramp)[0, 0, 0, 0] == pytest.approx((2 / 255 - 0.5) / 0.5, abs=1e-6)
    for change in ({"resize_mode": "longest"}, {"size": (64, 32)}, {"mean": None}, {"interpolation": "magic"}):
        with pytest.raises(ConfigError):
            Preprocessing.from_openclip({**values, "resize_mode": "shortest", **change})
    with pytest.raises(ConfigError, match="cannot be understood"):
        Preprocessing.from_openclip(values)


def test_pictures_of_a_wrong_shape() -> None:
    prepare = Preprocessing.from_transformers(OPENAI, 224)
    for images in (np.zeros((3, 8, 8)), np.zeros((1, 8, 8, 4)), np.zeros((1, 0, 8, 3))):
        with pytest.raises(ConfigError, match=r"\[N, H, W, 3\]"):
            prepare(images)
    with pytest.raises(ConfigError, match="too narrow"):
        prepare(np.zeros((1, 1, 1000, 3), np.uint8))


# --- transformers ---------------------------------------------------------------------------------


def test_hf_encoder_equals_the_model(tiny_clip: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPTokenizerFast
    from transformers.models.clip import CLIPImageProcessorPil

    encoder = open_encoder(f"hf:{tiny_clip}", batch_size=2)
    assert (encoder.dim, encoder.image_size, encoder.name) == (128, 64, f"hf:{tiny_clip}")
    images = pictures(5, 80, 80)
    texts, views = encoder.encode_texts(TEXTS), encoder.encode_images(images)

    model = CLIPModel.from_pretrained(tiny_clip).eval()
    tokens = CLIPTokenizerFast.from_pretrained(tiny_clip)(
        TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(tiny_clip)(
        list(np.rint(images * 255).astype(np.uint8)), return_tensors="pt"
    )
    with torch.no_grad():
        out = model(**tokens, pixel_values=pixels["pixel_values"])
    np.testing.assert_allclose(texts, out.text_embeds.numpy(), atol=2e-6)
    np.testing.assert_allclose(views, out.image_embeds.numpy(), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1.0, atol=1e-6)
    assert texts.dtype == views.dtype == np.float32
    assert encoder.encode_texts([]).shape == (0, 128)
    assert encoder.encode_images(images[:0]).shape == (0, 128)


def test_the_numpy_tower_equals_torch(tiny_clip: Path) -> None:
    light = open_encoder(f"hf:{tiny_clip}", texts_only=True)
    plain = open_encoder(f"hf:{tiny_clip}")
    texts = TEXTS * 12  # more than one batch
    np.testing.assert_allclose(light.encode_texts(texts), plain.encode_texts(texts), atol=1e-5)
    assert light.encode_texts([]).shape == (0, 128)
    assert light.fingerprint == plain.fingerprint


def test_the_numpy_tower_in_the_old_style(tiny_clip: Path, tmp_path: Path) -> None:
    """quick_gelu, an end marker "2" that means the highest id, half precision."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "old"
    shutil.copytree(tiny_clip, folder)
    config = json.loads((folder / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "quick_gelu"
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key: tensor.to(torch.float16) for key, tensor in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    light, plain = (open_encoder(f"hf:{folder}", texts_only=flag) for flag in (True, False))
    np.testing.assert_allclose(light.encode_texts(TEXTS), plain.encode_texts(TEXTS), atol=1e-5)
    assert light._tower is not None
    assert light.fingerprint != open_encoder(f"hf:{tiny_clip}").fingerprint


def test_what_the_numpy_tower_cannot_do_goes_through_torch(tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "brain-float"
    shutil.copytree(tiny_clip, folder)
    save_file(
        {key: tensor.to(torch.bfloat16) for key, tensor in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    encoder = open_encoder(f"hf:{folder}", texts_only=True)
    assert encoder.encode_texts(["a red cat"]).shape == (1, 128)
    assert encoder._tower is None
    config = json_file(folder / "config.json")
    with pytest.raises(NotLightError, match="activation"):
        LightText(tiny_clip, {**config, "text_config": {**config["text_config"], "hidden_act": "relu"}})
    with pytest.raises(NotLightError, match="weights"):
        LightText(tiny_clip, {**config, "text_config": {**config["text_config"], "num_hidden_layers": 9}})
    (folder / "tokenizer.json").write_text("{}")
    shutil.copy(tiny_clip / "model.safetensors", folder)
    with pytest.raises(NotLightError, match="tokenizer"):
        LightText(folder, config)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotLightError, match="no tokenizer"):
        LightText(folder, config)


def test_a_query_needs_no_torch(tiny_clip: Path) -> None:
    code = (
        "import sys\n"
        "from threestudio_redream.retrieval.encoders import open_encoder\n"
        "vectors = open_encoder(sys.argv[1], texts_only=True).encode_texts(['a red cat'])\n"
        "assert vectors.shape == (1, 128)\n"
        "heavy = [name for name in ('torch', 'transformers', 'numba') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, f"hf:{tiny_clip}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_fingerprints_follow_what_matters(tiny_clip: Path, tmp_path: Path) -> None:
    def changed(name: str, old: bytes, new: bytes) -> str:
        folder = tmp_path / f"{name}-{new.hex()[:8]}"
        shutil.copytree(tiny_clip, folder)
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new, 1))
        return open_encoder(f"hf:{folder}").fingerprint

    original = open_encoder(f"hf:{tiny_clip}").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(tiny_clip, copy)
    (copy / "README.md").write_text("does not matter")
    assert open_encoder(f"hf:{copy}", dtype="bfloat16").fingerprint == original
    last = (tiny_clip / "model.safetensors").read_bytes()[-8:]
    different = {
        changed("model.safetensors", last, bytes(8)),
        changed("preprocessor_config.json", b"0.5", b"0.4"),
        changed("tokenizer.json", b"cat", b"act"),
        changed("config.json", b'"gelu"', b'"quick_gelu"'),
    }
    assert original not in different
    assert len(different) == 4


def test_lower_precision_is_close_and_measured(tiny_clip: Path) -> None:
    name = f"hf:{tiny_clip}"
    error = dtype_error(name, "bfloat16")
    assert 0.0 < max(error.values()) < 0.05
    assert max(dtype_error(name, "float32").values()) == 0.0


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "model.safetensors not found"),
        ("config.json", "cannot be read"),
        ("preprocessor_config.json", "preprocessor_config.json of the model cannot be read"),
    ],
)
def test_incomplete_folders(tiny_clip: Path, tmp_path: Path, missing: str, message: str) -> None:
    folder = tmp_path / "part"
    shutil.copytree(tiny_clip, folder)
    (folder / missing).unlink()
    if missing == "config.json":
        (folder / missing).write_text("[1]")
    with pytest.raises(ConfigError, match=message) as caught:
        open_encoder(f"hf:{folder}")
    assert str(folder) in str(caught.value.received)
    assert caught.value.fix


def test_foreign_and_damaged_models(tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_clip, folder)
    config = json_file(folder / "config.json")
    for change, message in (
        ({"model_type": "bert"}, "no CLIP model"),
        ({"projection_dim": None}, "lacks a value"),
        ({"vision_config": {**config["vision_config"], "image_size": 32}}, "another size"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ConfigError, match=message):
            open_encoder(f"hf:{folder}")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x10" + bytes(100))
    for texts_only in (False, True):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            open_encoder(f"hf:{folder}", texts_only=texts_only).encode_texts(["cat"])
    (folder / "preprocessor_config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_encoder(f"hf:{folder}")


def test_shards_count_as_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x/m-1.safetensors"}}))
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"m-1\.safetensors not found"):
        model_files(tmp_path)
    (tmp_path / "m-1.safetensors").write_bytes(b"1")
    files = model_files(tmp_path)
    assert [path.name for path in files] == ["config.json", "vocab.json", "merges.txt", "m-1.safetensors"]
    assert len(digest(files)) == 64
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": []}))
    with pytest.raises(ConfigError, match="weights not found"):
        model_files(tmp_path)


@pytest.mark.parametrize("name", ["", "clip", "hf:", "openclip:", "blip:base"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ConfigError, match="The encoder is unknown") as caught:
        open_encoder(name)
    assert caught.value.received == name
    assert "hf:" in caught.value.fix


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        find_model(str(tmp_path / "nothing"))
    with pytest.raises(HubOfflineError, match="not on this machine") as caught:
        find_model("someone/some-model-that-is-not-cached@0123")
    assert "HF_HUB_OFFLINE" in caught.value.fix
    monkeypatch.setattr("threestudio_redream.mini.CLIP", tmp_path / "clip")
    with pytest.raises(ConfigError, match="mini CLIP is not in place") as caught:
        open_encoder("mini")
    assert "train_clip" in caught.value.fix


def test_mini_opens_the_shipped_folder(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.mini.CLIP", tiny_clip)
    assert open_encoder("mini").fingerprint == open_encoder(f"hf:{tiny_clip}").fingerprint
    assert open_encoder().name == "mini"


@pytest.mark.parametrize(("options", "message"), [({"dtype": "int8"}, "dtype"), ({"batch_size": 0}, "batch size")])
def test_options_out_of_range(tiny_clip: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_encoder(f"hf:{tiny_clip}", **options)


def test_embeddings_that_are_not_finite(tiny_clip: Path) -> None:
    import torch

    encoder = open_encoder(f"hf:{tiny_clip}")
    with torch.no_grad():
        encoder.model.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="zero or not finite"):
        encoder.encode_images(pictures(1, 64, 64))


# --- open_clip ------------------------------------------------------------------------------------


def test_open_clip_gives_the_embeddings_of_transformers(tiny_clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from tools.mini.convert_clip import convert_clip

    folder = convert_clip(tiny_clip, tmp_path / "open-clip")
    ours, theirs = open_encoder(f"openclip:local-dir:{folder}"), open_encoder(f"hf:{tiny_clip}")
    assert (ours.dim, ours.image_size) == (theirs.dim, theirs.image_size)
    assert {**ours.preprocessing, "crop": "floor"} == theirs.preprocessing
    np.testing.assert_allclose(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS), atol=1e-5)
    images = pictures(3, 90, 90)
    np.testing.assert_allclose(ours.encode_images(images), theirs.encode_images(images), atol=1e-5)
    assert len(ours.fingerprint) == 64
    assert ours.fingerprint == open_encoder(f"openclip:local-dir:{folder}").fingerprint
    (folder / "open_clip_model.safetensors").unlink()
    (folder / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="no safetensors"):
        open_encoder(f"openclip:local-dir:{folder}")
    with pytest.raises(ConfigError, match=r"open_clip_config\.json not found"):
        open_encoder(f"openclip:local-dir:{tmp_path}")
    for name, message in (("openclip:ViT-B-32", "needs an architecture"), ("openclip:ViT-B-32/nope", "cannot open")):
        with pytest.raises(ConfigError, match=message):
            open_encoder(name)


def test_open_clip_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"threestudio-redream\[openclip\]"):
        open_encoder("openclip:ViT-B-32/openai")


def test_open_clip_preprocessing_equals_torchvision() -> None:
    open_clip = pytest.importorskip("open_clip")
    from PIL import Image

    values = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    prepare = Preprocessing.from_openclip({"size": 64, **values})
    config = open_clip.transform.PreprocessCfg(size=64, **values)
    theirs = open_clip.transform.image_transform_v2(config, is_train=False)
    for height, width in ((64, 64), (100, 67), (51, 80)):
        image = np.rint(pictures(1, height, width)[0] * 255).astype(np.uint8)
        np.testing.assert_allclose(prepare(image[None])[0], theirs(Image.fromarray(image)).numpy(), atol=1e-5)
