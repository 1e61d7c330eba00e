"""A checkout of upstream named by THREESTUDIO_DIR: what this runtime does not have comes from it."""

import pytest
from foreign import workspace

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import registry
from threestudio_redream.runtime.stand_in import checkout

SYSTEM = """
from dataclasses import dataclass
import threestudio
from threestudio.systems.base import BaseLift3DSystem
from threestudio.models.geometry.implicit_sdf import ImplicitSDF

@threestudio.register("magic3d-system")
class Magic3D(BaseLift3DSystem):
    geometry_class = ImplicitSDF
"""
GEOMETRY = """
import threestudio
from extern.tools.shapes import SIDES
from threestudio.models.geometry.base import BaseImplicitGeometry

@threestudio.register("implicit-sdf")
class ImplicitSDF(BaseImplicitGeometry):
    sides = SIDES
"""


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A folder laid out as upstream is, written here."""
    root = tmp_path / "somewhere" / "threestudio"
    files = {
        "threestudio/__init__.py": "raise ImportError('ours stands in for this one')",
        "threestudio/systems/magic3d.py": SYSTEM,
        "threestudio/systems/base.py": "raise ImportError('ours stands in for this one')",
        "threestudio/models/geometry/implicit_sdf.py": GEOMETRY,
        "threestudio/utils/GAN/__init__.py": "",
        "threestudio/utils/GAN/loss.py": "def generator_loss(): return 3",
        "extern/tools/__init__.py": "",
        "extern/__init__.py": "",
        "extern/tools/shapes.py": "SIDES = 6",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv(checkout.VARIABLE, str(root))
    with workspace(tmp_path, monkeypatch):
        yield root


def test_registered_names_bring_their_modules(upstream):
    system = registry.find("magic3d-system")
    assert system.geometry_class is registry.find("implicit-sdf")
    assert system.geometry_class.sides == 6
    from threestudio.models.geometry.implicit_sdf import ImplicitSDF
    from threestudio.systems.base import BaseLift3DSystem

    from threestudio_redream.runtime.system import BaseLift3DSystem as ours

    assert ImplicitSDF is system.geometry_class
    assert BaseLift3DSystem is ours
    assert issubclass(system, ours)


def test_packages_and_attributes_come_from_it_too(upstream):
    import threestudio
    from threestudio.utils.GAN.loss import generator_loss

    assert generator_loss() == 3
    assert threestudio.models.geometry.implicit_sdf.ImplicitSDF.sides == 6


def test_what_it_does_not_hold_is_still_a_named_error(upstream):
    with pytest.raises(ModuleNotFoundError, match="which need CUDA"):
        import threestudio.models.materials.pbr_material  # noqa: F401
    with pytest.raises(registry.RegistryError, match=r"systems\.textmesh"):
        registry.find("textmesh-system")


def test_without_a_checkout_extern_is_nobodys(tmp_path, monkeypatch):
    monkeypatch.delenv(checkout.VARIABLE, raising=False)
    with workspace(tmp_path, monkeypatch), pytest.raises(ModuleNotFoundError, match="No module named 'extern'"):
        import extern.tools  # noqa: F401
    assert checkout.root() is None


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(checkout.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"no checkout of threestudio.*launch\.py"):
        checkout.root()
