"""Meshes and isosurfaces under the names of ``threestudio.models``."""

import numpy as np
import pytest
import torch

from threestudio_redream.errors import AssetError, ConfigError, EmptySceneError
from threestudio_redream.meshing.topology import is_watertight, signed_volume
from threestudio_redream.runtime.geometry import mesh_terms, tetrahedra
from threestudio_redream.runtime.geometry.isosurface import MarchingCubeCPUHelper, MarchingTetrahedraHelper
from threestudio_redream.runtime.geometry.surface import SurfaceMesh

HELPERS = {"cubes": lambda: MarchingCubeCPUHelper(25), "tetrahedra": lambda: MarchingTetrahedraHelper(24)}
BALL = 4.0 / 3.0 * np.pi * 0.3**3


def ball_level(nodes, radius=0.3):
    return (nodes - 0.5).norm(dim=-1, keepdim=True) - radius


@pytest.mark.parametrize("helper", HELPERS)
def test_a_ball_is_closed_and_looks_outwards(helper):
    made = HELPERS[helper]()
    found = made(ball_level(made.grid_vertices))
    mesh = found.to_mesh()
    assert is_watertight(mesh.faces)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(BALL, rel=0.02)
    outwards = torch.nn.functional.normalize(found.v_pos - 0.5, dim=-1)
    assert (found.v_nrm * outwards).sum(-1).min() > 0.98


def test_tetrahedra_pass_gradients_to_levels_and_deformation():
    made = MarchingTetrahedraHelper(8)
    level = ball_level(made.grid_vertices).requires_grad_()
    shift = torch.zeros_like(made.grid_vertices, requires_grad=True)
    mesh = made(level, shift)
    assert mesh.requires_grad
    assert mesh.remove_outlier(0.5) is mesh
    mesh.v_pos[:, 0].sum().backward()
    assert level.grad.abs().sum() > 0
    assert shift.grad[:, 0].sum() == pytest.approx(len(mesh.v_pos) * 0.5 / 8, rel=1e-4)  # half an edge each
    assert set(mesh.extras) == {"grid_vertices", "tet_edges", "grid_level", "grid_deformation"}
    assert made.normalize_grid_deformation(torch.full((1, 3), 100.0)).max() == pytest.approx(0.5 / 8)


def test_all_sixteen_cases_look_outwards():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    made = MarchingTetrahedraHelper(1)
    made.indices = torch.tensor([[0, 1, 2, 3]])
    made._nodes = corners
    for code in range(1, 15):
        inside = torch.tensor([bool(code >> corner & 1) for corner in range(4)])
        mesh = made(torch.where(inside, -1.0, 1.0))
        a, b, c = mesh.v_pos[mesh.t_pos_idx].unbind(1)
        outwards = corners[~inside].mean(0) - corners[inside].mean(0)
        assert (torch.linalg.cross(b - a, c - a) @ outwards > 0).all(), code
        assert len(mesh.t_pos_idx) == (2 if inside.sum() == 2 else 1)


def test_a_grid_from_a_file_and_files_that_are_none(tmp_path):
    vertices, indices = tetrahedra.kuhn_grid(4)
    path = tmp_path / "4_tets.npz"
    np.savez(path, vertices=vertices.numpy(), indices=indices[:, [0, 1, 3, 2]].numpy())  # turned inside out
    made = MarchingTetrahedraHelper(4, str(path))
    assert torch.equal(made.indices, indices)
    assert made.normalize_grid_deformation(torch.full((1, 3), 100.0)).max() == pytest.approx(0.25)
    assert MarchingTetrahedraHelper(4, str(tmp_path / "none.npz")).grid_vertices.shape == (125, 3)
    assert len(made.all_edges) == len({tuple(sorted(edge)) for edge in made.all_edges.tolist()})
    for wrong in ({"vertices": vertices.numpy()}, {"vertices": vertices.numpy(), "indices": indices.numpy() + 200}):
        np.savez(path, **wrong)
        with pytest.raises(AssetError, match="4_tets"):
            MarchingTetrahedraHelper(4, str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(AssetError, match="grid of tetrahedra"):
        MarchingTetrahedraHelper(4, str(path))


@pytest.mark.parametrize("helper", HELPERS)
def test_no_surface_is_a_named_outcome(helper):
    made = HELPERS[helper]()
    with pytest.raises(EmptySceneError):
        made(torch.ones(len(made.grid_vertices), 1))


def test_terms_of_a_plane_and_of_a_bent_one():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    mesh = SurfaceMesh(flat, faces)
    assert mesh.normal_consistency().item() == pytest.approx(0.0, abs=1e-6)
    assert mesh.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    # vertex 1 has neighbours 0 and 2: |2 v1 - v0 - v2| = |(1, -1, 0)|, and so on round the square
    assert mesh.laplacian().item() == pytest.approx((2 * 2**0.5 + 2 * 8**0.5) / 4, rel=1e-6)
    bent = SurfaceMesh(flat + torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]), faces)
    loss = bent.normal_consistency() + bent.laplacian()
    loss.backward()
    assert torch.isfinite(flat.grad).all()
    assert bent.normal_consistency() > 0.05


def test_tangents_run_along_u():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    normals = mesh_terms.vertex_normals(flat, faces)
    for turn in (flat[:, :2], flat[:, [1, 0]], 1.0 - flat[:, :2]):
        tangents = mesh_terms.vertex_tangents(flat, faces, turn, faces, normals)
        step = (turn[1] - turn[0])[0] * torch.tensor([1.0, 0, 0]) + (turn[3] - turn[0])[0] * torch.tensor([0.0, 1, 0])
        torch.testing.assert_close(tangents, step.expand(4, 3))


def test_texture_coordinates_colours_and_loose_parts():
    made = MarchingCubeCPUHelper(17)
    nodes = made.grid_vertices
    two = torch.minimum(ball_level(nodes - 0.15, 0.2), ball_level(nodes + 0.3, 0.1))
    mesh = made(two)
    assert mesh.t_tex_idx.shape == mesh.t_pos_idx.shape
    assert 0.0 <= mesh.v_tex.min() <= mesh.v_tex.max() <= 1.0
    assert mesh.v_tng.shape == mesh.v_pos.shape
    mesh.add_extra("note", 3)
    kept = mesh.remove_outlier(0.5)
    assert len(kept.t_pos_idx) < len(mesh.t_pos_idx)
    assert kept.extras["note"] == 3
    assert len(mesh.remove_outlier(10).t_pos_idx) == len(mesh.t_pos_idx)
    mesh.set_vertex_color(torch.zeros_like(mesh.v_pos))
    assert mesh.v_rgb is not None
    with pytest.raises(ConfigError, match="vertices"):
        mesh.set_vertex_color(torch.zeros(1, 3))


def test_a_grid_that_unpacks_too_large_is_refused(tmp_path, monkeypatch):
    vertices, indices = tetrahedra.kuhn_grid(4)
    path = tmp_path / "grid.npz"
    np.savez_compressed(path, vertices=vertices.numpy(), indices=indices.numpy())
    tetrahedra.read_grid(path)
    monkeypatch.setattr(tetrahedra, "MAX_GRID_BYTES", 2 * path.stat().st_size)
    with pytest.raises(AssetError, match="unpacks to more than"):
        tetrahedra.read_grid(path)
