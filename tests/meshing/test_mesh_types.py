import subprocess
import sys

import numpy as np
import pytest

from threestudio_redream.errors import AssetError
from threestudio_redream.meshing import Mesh, TexturedMesh, is_watertight, signed_volume
from threestudio_redream.meshing.topology import face_areas, face_components


def test_import_is_light():
    heavy = ("torch", "numba", "skimage", "scipy", "xatlas", "trimesh", "PIL")
    code = f"import sys, threestudio_redream.meshing; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_mesh_converts_dtypes():
    mesh = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]], np.int64), normals=np.ones((3, 3)), colors=np.ones((3, 3)))
    assert mesh.vertices.dtype == mesh.normals.dtype == mesh.colors.dtype == np.float32
    assert mesh.faces.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "problem", "received", "fix"),
    [
        ({"vertices": np.zeros((3, 2))}, "shape \\[V, 3\\]", "\\(3, 2\\)", "one row per vertex"),
        ({"vertices": np.full((3, 3), np.nan)}, "non-finite", "3 of 3 rows", "Check the field"),
        ({"faces": np.array([[0, 1, 3]])}, "outside the 3 vertices", "\\(0, 3\\)", "from 0"),
        ({"faces": np.array([[0, -1, 2]])}, "outside the 3 vertices", "\\(-1, 2\\)", "from 0"),
        ({"faces": np.array([[0, 1, 2, 0]])}, "\\[F, 3\\]", "\\(1, 4\\)", "Triangulate"),
        ({"normals": np.zeros((2, 3))}, "shape \\[3, 3\\]", "\\(2, 3\\)", "one row per vertex"),
    ],
)
def test_mesh_rejects_what_does_not_fit(change, problem, received, fix):
    arguments = {"vertices": np.zeros((3, 3)), "faces": np.array([[0, 1, 2]]), **change}
    with pytest.raises(AssetError, match=f"{problem}.*{received}.*{fix}"):
        Mesh(**arguments)


def test_textured_mesh_rejects_float_textures(quad):
    with pytest.raises(AssetError, match=r"uint8 of shape.*float64.*astype\(uint8\)"):
        TexturedMesh(quad.vertices, quad.faces, quad.normals, quad.uvs, quad.texture / 255.0)


def test_measures_of_a_tetrahedron(tetrahedron):
    assert signed_volume(tetrahedron.vertices, tetrahedron.faces) == pytest.approx(1 / 6)
    assert signed_volume(tetrahedron.vertices + 5.0, tetrahedron.faces) == pytest.approx(1 / 6)
    assert signed_volume(tetrahedron.vertices, tetrahedron.faces[:, ::-1]) == pytest.approx(-1 / 6)
    np.testing.assert_allclose(face_areas(tetrahedron.vertices, tetrahedron.faces), [0.5, 0.5, 0.5, np.sqrt(3) / 2])


def test_watertight_means_closed_manifold_and_consistent(tetrahedron):
    faces = tetrahedron.faces
    flipped = faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert is_watertight(faces)
    assert not is_watertight(faces[:3])
    assert not is_watertight(flipped)
    assert not is_watertight(np.concatenate([faces, faces]))
    assert not is_watertight(np.zeros((0, 3), np.int32))


def test_components_ignore_unused_vertices(tetrahedron):
    faces = np.concatenate([tetrahedron.faces, tetrahedron.faces + 6])
    count, part = face_components(faces, 12)
    assert count == 2
    assert part.tolist() == [0] * 4 + [1] * 4
