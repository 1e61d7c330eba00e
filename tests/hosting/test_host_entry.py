"""Both ways into threestudio, and what is left when the way is barred."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_threestudio import ROOT, launch, make_checkout

from threestudio_redream.catalog import REDREAM_MODULES
from threestudio_redream.hosting import shim

NAMES = len(REDREAM_MODULES)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "threestudio")


def clone_into(checkout: Path, name: str) -> Path:
    """The repository as ``git clone`` would put it there; links do."""
    folder = checkout / "custom" / name
    folder.mkdir()
    for part in ("__init__.py", "threestudio_redream"):
        (folder / part).symlink_to(ROOT / part)
    return folder


def test_shim_and_clone_together_register_once(checkout: Path) -> None:
    shim.install(checkout)
    folder = checkout / "custom" / "threestudio-redream"
    folder.mkdir()
    (folder / "__init__.py").write_text((ROOT / "__init__.py").read_text("utf-8"), encoding="utf-8")
    out = launch(checkout, *REDREAM_MODULES)
    assert out.count("IMPORTED") == 2, out
    assert out.count("names registered") == 1
    assert out.count("FOUND redream-") + out.count("FOUND retrieved-") == NAMES
    assert f"threestudio-redream in {ROOT} is used; the clone in {folder} is not" in out


@pytest.mark.parametrize("name", ["threestudio-redream", "threestudio_redream"])
def test_a_clone_needs_no_installation(checkout: Path, name: str) -> None:
    folder = clone_into(checkout, name)
    (folder / "__init__.py").unlink()  # through a link it would find the package beside its target
    (folder / "__init__.py").write_text((ROOT / "__init__.py").read_text("utf-8"), encoding="utf-8")
    out = launch(checkout, "redream-system", path=(), HIDE_INSTALLED="1")
    assert f"IMPORTED {name}" in out, out
    assert f"FOUND redream-system threestudio_redream.systems.redream {folder / 'threestudio_redream'}" in out


def test_without_the_package_the_shim_says_how_to_install_it(checkout: Path) -> None:
    shim.install(checkout)
    out = launch(checkout, "redream-system", path=(), HIDE_INSTALLED="1")
    assert "IMPORT FAILED threestudio_redream_shim.py ModuleNotFoundError threestudio-redream is not installed" in out
    assert "pip install" in out


def test_an_old_diffusers_is_refused_once_and_the_reason_stays(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "site" / "diffusers-0.24.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: diffusers\nVersion: 0.24.0\n", encoding="utf-8")
    shim.install(checkout)
    (checkout / "custom" / "again.py").write_text("import threestudio_redream\n", encoding="utf-8")
    out = launch(checkout, "redream-system", "retrieved-asset-initializer", path=(old.parent, ROOT))
    reason = "diffusers 0.24.0 is older than 0.33: our LoRA adapters are peft layers"
    assert out.count("IMPORT FAILED") == 2, out
    assert "IMPORT FAILED threestudio_redream_shim.py HostError threestudio-redream cannot work in this" in out
    assert "REFUSED redream-system HostError 'redream-system' is not available." in out
    assert out.count(reason) == 4
    assert out.count("python -m pip install 'diffusers>=0.33'") == 4


def test_the_package_may_come_first_its_classes_may_not(checkout: Path) -> None:
    shim.install(checkout)
    out = launch(checkout, "redream-system", PACKAGE_FIRST="threestudio_redream")
    assert "FOUND redream-system threestudio_redream.systems.redream" in out, out
    out = launch(checkout, "redream-system", PACKAGE_FIRST="threestudio_redream.guidance.sds")
    assert "used in this process before threestudio was imported" in out
    assert "Import threestudio first" in out
