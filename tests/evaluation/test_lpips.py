"""LPIPS against a hand-written one with random weights, its files, and A-LPIPS over a turn."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation import lpips
from threestudio_redream.evaluation.consistency import a_lpips, adjacent_lpips
from threestudio_redream.evaluation.lpips import LPIPS, open_lpips

SHAPES = {
    "alex": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
    "vgg": {
        n: (o, i, 3)
        for n, o, i in zip(
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
            (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
        )
    },
}


def random_backbone(net: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with the published layout and random weights, which then counts as the published one."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, (out, width, kernel) in SHAPES[net].items():
        bound = (2.0 / (width * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(out, width, kernel, kernel, generator=generator) * bound
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=generator)
    state["classifier.1.weight"] = torch.zeros(1)  # in the published file, too
    path = folder / "weights.pth"
    torch.save(state, path)  # noqa: TID251
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(lpips.NETS, net, f"{net}-{digits}.pth")
    return path, state


def by_hand(net: str, state: dict[str, torch.Tensor], one: np.ndarray, other: np.ndarray) -> float:
    """The definition, layer by layer, for one pair ``[H, W, 3]``; with torch's convolution alone."""
    origin = importlib.util.find_spec("torchmetrics").origin
    path = Path(origin).parent / "functional" / "image" / "lpips_models" / f"{net}.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    pools = {"alex": (2, 5), "vgg": (4, 9, 16, 23)}[net]
    looks = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}[net]
    stacks = []
    for image in (one, other):
        centred = (image * 2.0 - 1.0 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x = torch.from_numpy(centred.transpose(2, 0, 1)[None]).float()
        seen = []
        for number in range(max(looks) + 1):
            if f"features.{number}.weight" in state:
                weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
                first = net == "alex" and number == 0
                padding = 2 if first or weight.shape[-1] == 5 else 1
                x = torch.conv2d(x, weight, bias, stride=4 if first else 1, padding=padding).clamp(min=0)
                if number in looks:
                    seen.append(x[0].double().numpy())
            elif number in pools:
                size = 3 if net == "alex" else 2
                x = torch.max_pool2d(x, size, 2)
        stacks.append(seen)
    total = 0.0
    for layer, (a, b) in enumerate(zip(*stacks)):
        a, b = a / np.linalg.norm(a, axis=0).clip(1e-10), b / np.linalg.norm(b, axis=0).clip(1e-10)
        weights = heads[f"lin{layer}.model.1.weight"].flatten().double().numpy()
        total += float((((a - b) ** 2) * weights[:, None, None]).sum(0).mean())
    return total


def views(count: int, side: int = 48) -> torch.Tensor:
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_it_is_the_definition(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, state = random_backbone(net, tmp_path, monkeypatch)
    distance, pictures = open_lpips(net, path), views(4)
    found = distance(pictures[:2], pictures[2:])
    wanted = [by_hand(net, state, pictures[i].double().numpy(), pictures[i + 2].double().numpy()) for i in (0, 1)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    torch.testing.assert_close(distance(pictures[2:], pictures[:2]), found)
    assert torch.equal(distance(pictures, pictures), torch.zeros(4))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_it_agrees_with_torchmetrics(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    from torchmetrics.functional.image import lpips as theirs

    path, state = random_backbone(net, tmp_path, monkeypatch)
    other = theirs._LPIPS(pretrained=True, net=net, pnet_rand=True)
    tensors = dict(other.net.named_parameters())
    for name, tensor in tensors.items():  # slice2.3.weight holds features.3.weight
        tensor.data.copy_(state["features." + name.split(".", 1)[1]])
    pictures = views(4)
    found = open_lpips(net, path)(pictures[:2], pictures[2:])
    first, second = pictures.permute(0, 3, 1, 2).chunk(2)
    torch.testing.assert_close(found, other(first, second, normalize=True).flatten(), rtol=1e-4, atol=1e-5)


def test_the_mini_form_needs_no_files_and_sees_differences() -> None:
    distance, pictures = open_lpips("mini"), views(2, 64)
    small = (pictures + 0.02).clamp(0.0, 1.0)
    assert torch.equal(distance(pictures, pictures), torch.zeros(2))
    assert (distance(pictures, small) < distance(pictures, pictures.flip(0))).all()


def test_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = random_backbone("alex", tmp_path, monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lpips, "URL", (tmp_path / "there").as_uri() + "/")
    with pytest.raises(ConfigError, match="cannot be fetched"):
        open_lpips("alex")
    (tmp_path / "there").mkdir()
    path.rename(tmp_path / "there" / lpips.NETS["alex"])
    assert open_lpips("alex").name == "alex"  # fetched
    kept = tmp_path / "home" / "hub" / "checkpoints" / lpips.NETS["alex"]
    assert kept.is_file()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="not the published one"):
        open_lpips("alex")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_lpips("alex", tmp_path / "nothing.pth")
    with pytest.raises(ConfigError, match="Unknown backbone"):
        open_lpips("squeeze")
    monkeypatch.setitem(lpips.NETS, "vgg", lpips.NETS["alex"])
    with pytest.raises(ConfigError, match="no backbone"):
        open_lpips("vgg", tmp_path / "there" / lpips.NETS["alex"])


@pytest.mark.parametrize("bad", [torch.rand(3, 48, 48), torch.rand(1, 16, 48, 3), torch.full((1, 48, 48, 3), 1.1)])
def test_bad_pictures_are_named(bad: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="LPIPS wants"):
        open_lpips("mini")(bad, bad)


@pytest.fixture(scope="module")
def mini() -> LPIPS:
    return open_lpips("mini")


def test_identical_frames_give_0_and_120_frames_make_119_pairs(mini: LPIPS) -> None:
    same = views(1, 32).expand(120, -1, -1, -1)
    pairs = adjacent_lpips(mini, same)
    assert pairs.shape == (119,)
    assert float(pairs.abs().max()) < 1e-10
    assert a_lpips(mini, same) < 1e-10


def test_portions_do_not_matter(mini: LPIPS) -> None:
    turn = views(11, 32)
    whole = adjacent_lpips(mini, turn, batch_size=11)
    for size in (1, 2, 3, 5, 10):
        torch.testing.assert_close(adjacent_lpips(mini, turn, batch_size=size), whole)
    torch.testing.assert_close(whole, mini(turn[:-1], turn[1:]))
    torch.testing.assert_close(adjacent_lpips(mini, turn.flip(0)), whole.flip(0))
    assert a_lpips(mini, turn) == pytest.approx(float(whole.mean()))


def test_one_view_has_no_neighbour(mini: LPIPS) -> None:
    with pytest.raises(ConfigError, match="two views"):
        a_lpips(mini, views(1))
