"""The names that extensions import from ``threestudio``: what each does, and what is said of those that are absent."""

import importlib
import math

import pytest
import torch
from foreign import workspace
from torch import nn

from threestudio_redream.errors import ConfigError, RegistryError
from threestudio_redream.runtime import registry
from threestudio_redream.runtime.stand_in.table import ABSENT, ABSENT_NAMES, PROVIDED, REGISTERED_UPSTREAM


@pytest.fixture(autouse=True)
def _host(tmp_path, monkeypatch):
    monkeypatch.delenv("THREESTUDIO_DIR", raising=False)
    with workspace(tmp_path, monkeypatch):
        yield


# --- what is absent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ABSENT)
def test_an_absent_module_says_why_and_what_to_do(module):
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(module)
    text = str(caught.value)
    assert f"'{module}'" in text
    assert ABSENT[module] in text
    assert "THREESTUDIO_DIR" in text


@pytest.mark.parametrize("path", ABSENT_NAMES)
def test_an_absent_name_says_why_however_it_is_imported(path):
    module, name = path.split(":")
    with pytest.raises(AttributeError, match="stand-in") as caught:
        getattr(importlib.import_module(module), name)
    assert ABSENT_NAMES[path] in str(caught.value)
    with pytest.raises(ImportError) as caught:
        exec(f"from {module} import {name}", {})  # noqa: S102  the statement is the test's own
    assert ABSENT_NAMES[path] in str(caught.value)


def test_a_name_that_nobody_knows_is_asked_about():
    with pytest.raises(ImportError, match=r"threestudio\.utils\.misc\.no_such.*Is the name right"):
        from threestudio.utils.misc import no_such  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"threestudio\.models\.no_such.*Is the name right"):
        importlib.import_module("threestudio.models.no_such")
    assert not hasattr(importlib.import_module("threestudio.utils.misc"), "no_such")


def test_the_table_says_everything_once():
    assert not set(PROVIDED) & set(ABSENT)
    for path in ABSENT_NAMES:
        module, name = path.split(":")
        assert name not in PROVIDED[module]
    for name, (module, instead) in REGISTERED_UPSTREAM.items():
        assert f"threestudio.{module}" in ABSENT, name
        assert not instead or instead in registry.registered_names(), name
        assert name not in registry.registered_names()


def test_upstreams_registered_names_lead_to_ours():
    with pytest.raises(RegistryError) as caught:
        registry.find("dreamfusion-system")
    text = str(caught.value)
    assert "threestudio.systems.dreamfusion" in text
    assert "redream-score-distillation-system" in text
    assert "THREESTUDIO_DIR" in text


def test_an_alias_is_ours_until_an_extension_takes_the_name():
    import threestudio

    ours = threestudio.find("stable-diffusion-prompt-processor")
    assert ours is threestudio.find("redream-stable-diffusion-prompt-processor")

    @threestudio.register("stable-diffusion-prompt-processor")
    class Theirs:
        pass

    assert threestudio.find("stable-diffusion-prompt-processor") is Theirs


def test_modules_are_there_without_being_imported_one_by_one():
    import threestudio

    assert threestudio.models.mesh.Mesh.__name__ == "SurfaceMesh"
    assert threestudio.systems.optimizers.Adan.__name__ == "Adan"


# --- what is there ----------------------------------------------------------------------------------


def test_small_helpers(tmp_path):
    from threestudio.utils.misc import barrier, broadcast, enable_gradient, find_last_path, finish_with_cleanup

    layer = nn.Linear(2, 2)
    enable_gradient(layer, enabled=False)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    barrier()
    tensor = torch.arange(3)
    assert broadcast(tensor) is tensor

    @finish_with_cleanup
    def double(value):
        return 2 * value

    assert double(4) == 8
    assert double.__name__ == "double"
    for name in ("a_cat@1", "a_cat@2", "a_dog@3"):
        (tmp_path / "runs" / name / "ckpts").mkdir(parents=True)
    assert find_last_path("runs/a cat@LAST/ckpts") == "runs/a_cat@2/ckpts"
    assert find_last_path("runs/LAST/ckpts") == "runs/a_dog@3/ckpts"
    assert find_last_path("runs/x") == "runs/x"
    assert find_last_path(None) is None
    with pytest.raises(ConfigError, match="a_cow@LAST"):
        find_last_path("runs/a_cow@LAST/ckpts")
    with pytest.raises(ConfigError, match="does not exist"):
        find_last_path("runs/a_cat@LAST/nothing")


def test_splat_cameras_see_what_the_projection_sees():
    from threestudio.utils.ops import get_cam_info_gaussian, get_fov_gaussian, get_projection_matrix_gaussian

    c2w = torch.eye(4)
    c2w[2, 3] = 2.0
    world_view, full, centre = get_cam_info_gaussian(c2w, fovx=0.6, fovy=0.8, znear=0.1, zfar=100.0)
    origin = torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(origin @ world_view, torch.tensor([0.0, 0.0, 2.0, 1.0]))
    torch.testing.assert_close(centre, torch.tensor([0.0, 0.0, 2.0]))
    clip = torch.tensor([2.0 * math.tan(0.3), 2.0 * math.tan(0.4), 0.0, 1.0]) @ full
    torch.testing.assert_close(clip[:2] / clip[3], torch.tensor([1.0, -1.0]))  # right edge, and y down
    near, far = (torch.tensor([0.0, 0.0, 2.0 - depth, 1.0]) @ full for depth in (0.1, 100.0))
    assert near[2] / near[3] == pytest.approx(0.0, abs=1e-5)
    assert far[2] / far[3] == pytest.approx(1.0, abs=1e-5)
    assert get_fov_gaussian(get_projection_matrix_gaussian(0.1, 100.0, 0.6, 0.8)) == pytest.approx((0.6, 0.8))


def test_ops():
    from threestudio.utils import ops

    rays = torch.zeros(0, dtype=torch.long)
    indices, start, end = ops.validate_empty_rays(rays, torch.zeros(0), torch.zeros(0))
    assert indices.tolist() == [0]
    assert (end - start).tolist() == [0.0]
    kept = torch.tensor([3])
    assert ops.validate_empty_rays(kept, torch.ones(1), torch.ones(1))[0] is kept
    picked = ops.mask_ray_directions(64, 128, 8, 4)
    assert picked.shape == (8, 4)
    assert 0 <= int(picked.min()) <= int(picked.max()) < 64 * 128
    assert len(picked.unique()) == 32
    r = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(ops.shifted_expotional_decay(2.0, 1.0, 0.5, r), 2.0 * torch.exp(-r) + 0.5)
    torch.testing.assert_close(ops.shifted_cosine_decay(1.0, math.pi, 0.0, r), torch.tensor([2.0, 0.0]))
    x = torch.zeros(3, requires_grad=True)
    (2.0 * ops.SpecifyGradient.apply(x, torch.tensor([1.0, 2.0, 3.0]))).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]
    assert (
        ops.get_full_projection_matrix(torch.eye(4)[None], 2 * torch.eye(4)[None]).diagonal(dim1=1, dim2=2).sum() == 8
    )


def test_camera_data_may_be_subclassed_and_asked_by_others_loaders():
    from threestudio.data.uncond import RandomCameraDataModule, RandomCameraDataset, RandomCameraIterableDataset

    data = RandomCameraDataModule(
        {"height": [8, 4], "width": [6, 4], "batch_size": [1, 2], "resolution_milestones": [5]}
    )
    made = RandomCameraIterableDataset(data.cfg)
    assert made.directions_unit_focal.shape == (8, 6, 3)
    assert (made.directions_unit_focal[..., 2] == -1).all()
    assert tuple(made.fovy_range) == (40, 70)
    assert tuple(made.camera_distance_range) == (1, 1.5)
    assert torch.equal(made.collate({"step": 3})["c2w"], made.collate([{"step": 3}])["c2w"])
    first, second = made.collate({}), made.collate({})  # an item that is not of this dataset
    assert torch.equal(first["c2w"], made.collate({"step": 0})["c2w"])
    assert torch.equal(second["c2w"], made.collate({"step": 1})["c2w"])
    made.update_step(0, 5)
    assert made.directions_unit_focal.shape == (4, 4, 3)
    loader = data.general_loader(made, None, made.collate)
    assert next(iter(loader))["rays_d"].shape[1:] == (8, 6, 3)
    views = RandomCameraDataset(data.cfg, "test")
    assert len(data.general_loader(views, 1, views.collate)) == 120


def test_total_variation_of_a_ramp_and_of_a_flat_picture():
    from threestudio.utils.loss import tv_loss

    assert tv_loss(torch.ones(1, 3, 4, 4)) == 0.0
    ramp = torch.arange(4.0).expand(2, 3, 4, 4)  # one step of 1 to the right, none downwards
    assert tv_loss(ramp) == 2.0


def test_a_wrapped_module_answers_in_another_type():
    from threestudio.models.networks import ToDTypeWrapper

    assert ToDTypeWrapper(nn.Linear(2, 2), torch.float16)(torch.zeros(1, 2)).dtype == torch.float16


def test_schedulers_as_instances():
    from omegaconf import OmegaConf
    from threestudio.systems.utils import get_scheduler, getattr_recursive, parse_scheduler_to_instance

    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    config = OmegaConf.create({"name": "ExponentialLR", "args": {"gamma": 0.5}})
    scheduler = parse_scheduler_to_instance(config, optimizer)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5]
    assert get_scheduler("ExponentialLR") is type(scheduler)
    with pytest.raises(ConfigError, match="NoneSuch"):
        get_scheduler("NoneSuch")
    assert getattr_recursive(layer, "weight.data").shape == (1, 1)


def test_adan_finds_a_minimum_and_comes_by_name():
    from omegaconf import OmegaConf
    from threestudio.systems.utils import parse_optimizer

    model = nn.Linear(2, 1, bias=False)
    config = {"name": "Adan", "args": {"lr": 0.02, "betas": [0.98, 0.92, 0.99], "weight_decay": 0.0}}
    optimizer = parse_optimizer(OmegaConf.create(config), model)
    wanted = torch.tensor([[1.0, -2.0]])
    for _ in range(600):
        optimizer.zero_grad()
        (model.weight - wanted).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.weight.data, wanted, atol=0.05, rtol=0)


def test_adan_takes_a_first_step_of_lr_and_decays_as_asked():
    from threestudio.systems.optimizers import Adan

    for no_prox, expected in ((False, (1.0 - 0.1) / 1.01), (True, 0.99 - 0.1)):
        value = nn.Parameter(torch.tensor([1.0]))
        optimizer = Adan([value], lr=0.1, eps=0.0, weight_decay=0.1, no_prox=no_prox, max_grad_norm=1.0)
        value.grad = torch.tensor([5.0])
        optimizer.step()
        assert value.item() == pytest.approx(expected, abs=1e-6)


def test_perceptual_loss_by_name_has_gradients():
    import threestudio
    from threestudio.utils.perceptual import PerceptualLoss

    loss = threestudio.find("perceptual-loss")({"net": "mini"})
    assert isinstance(loss.perceptual_loss, PerceptualLoss)
    one = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    other = torch.rand(2, 3, 64, 64) * 2 - 1
    distance = loss(one, other)
    assert distance.shape == (2, 1, 1, 1)
    assert (distance > 0).all()
    distance.sum().backward()
    assert torch.isfinite(one.grad).all()
    assert one.grad.abs().sum() > 0
    assert loss(other, other).abs().max() == 0.0
    black = torch.full((1, 3, 64, 64), -1.0, requires_grad=True)
    loss(black, other[:1]).sum().backward()
    assert torch.isfinite(black.grad).all()


def test_the_rasteriser_is_an_error_when_it_is_made(monkeypatch):
    import sys

    from threestudio.utils.rasterize import NVDiffRasterizerContext

    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    with pytest.raises(ConfigError, match=r"nvdiffrast.*'cuda'.*NVlabs/nvdiffrast"):
        NVDiffRasterizerContext("cuda", torch.device("cpu"))
    with pytest.raises(ConfigError, match="vulkan"):
        NVDiffRasterizerContext("vulkan", torch.device("cpu"))


def test_the_rasteriser_asks_nvdiffrast(monkeypatch):
    import sys
    import types

    calls = []
    library = types.ModuleType("nvdiffrast.torch")
    library.RasterizeCudaContext = library.RasterizeGLContext = lambda device: "context"
    library.rasterize = lambda ctx, pos, tri, size, grad_db: (
        torch.zeros(len(pos), 2, 2, 4),
        torch.zeros(len(pos), 2, 2, 4),
    )
    library.interpolate = lambda attr, rast, tri, rast_db, diff_attrs: calls.append(attr.shape)
    library.antialias = lambda color, rast, pos, tri: calls.append(tri.dtype)
    package = types.ModuleType("nvdiffrast")
    package.torch = library
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", library)
    from threestudio.utils.rasterize import NVDiffRasterizerContext

    context = NVDiffRasterizerContext("gl", torch.device("cpu"))
    mvp = torch.eye(4)[None] * 2.0
    clip = context.vertex_transform(torch.tensor([[1.0, 2.0, 3.0]]), mvp)
    assert clip.tolist() == [[[2.0, 4.0, 6.0, 2.0]]]
    faces = torch.tensor([[0, 0, 0]])
    assert context.rasterize_one(clip[0], faces, (2, 2))[0].shape == (2, 2, 4)
    context.interpolate_one(torch.zeros(1, 5), torch.zeros(1, 2, 2, 4), faces)
    context.antialias(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 4), clip, faces)
    assert calls == [(1, 1, 5), torch.int32]
