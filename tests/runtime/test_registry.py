import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from threestudio_redream import catalog
from threestudio_redream.errors import RegistryError
from threestudio_redream.runtime import registry
from threestudio_redream.runtime.extensions import load_custom_modules

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _restore_registry(monkeypatch):
    monkeypatch.setattr(registry, "_failed_extensions", {})
    known = {*registry._classes, *catalog.BUILTIN_MODULES, *catalog.REDREAM_MODULES}
    yield
    for name in set(registry._classes) - known:
        del registry._classes[name]


def test_every_catalogued_name_is_registered_by_its_module():
    for name, module in {**catalog.BUILTIN_MODULES, **catalog.REDREAM_MODULES}.items():
        importlib.import_module(module)
        assert registry.find(name).__module__ == module


def test_catalogue_and_decorators_agree():
    decorated = set()
    for path in (ROOT / "threestudio_redream").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for item in getattr(node, "decorator_list", []):
                if isinstance(item, ast.Call) and getattr(item.func, "id", "") == "register":
                    decorated.add(item.args[0].value)
    assert decorated == {*catalog.BUILTIN_MODULES, *catalog.REDREAM_MODULES}


def test_unknown_name_lists_near_ones():
    with pytest.raises(RegistryError) as caught:
        registry.find("implicit-volum")
    assert "implicit-volum" in str(caught.value)
    assert "implicit-volume" in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_empty_name_points_to_the_type_key():
    with pytest.raises(RegistryError, match="_type"):
        registry.find("")


def test_second_registration_of_a_name_is_refused():
    class First: ...

    class Second: ...

    registry.register("test-thing")(First)
    assert registry.register("test-thing")(First) is First
    with pytest.raises(RegistryError, match="registered twice") as caught:
        registry.register("test-thing")(Second)
    assert isinstance(caught.value, ValueError)
    for name in ("mesh-exporter", "redream-fit-asset-system"):  # taken whether or not the owner is imported yet
        with pytest.raises(RegistryError, match=r"belongs to|registered twice"):
            registry.register(name)(Second)


def test_mixins_come_before_the_main_class():
    class Main:
        def who(self):
            return "main"

    class Sub:
        def who(self):
            return "sub+" + super().who()

    registry.register("test-main")(Main)
    registry.register("test-sub")(Sub)
    combined = registry.find("test-main:test-sub")
    assert combined.__mro__[1:3] == (Sub, Main)
    assert combined().who() == "sub+main"


def test_failed_extension_is_named_where_its_class_is_looked_up(tmp_path):
    (tmp_path / "good.py").write_text(
        "from threestudio_redream.runtime import register\n@register('ext-good')\nclass Good: pass\n"
    )
    broken = tmp_path / "threestudio-broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("from . import inner\n")
    (broken / "inner.py").write_text("import a_package_that_is_absent\n")
    (tmp_path / "off_disabled").mkdir()
    (tmp_path / "off_disabled" / "__init__.py").write_text("raise RuntimeError('must not load')\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.txt").write_text("not an extension")
    (tmp_path / "json.py").write_text("shadow = True\n")
    outcomes = {o.path.name: o.error for o in load_custom_modules(tmp_path)}
    assert outcomes["good.py"] is None
    assert "a_package_that_is_absent" in outcomes["threestudio-broken"]
    assert "shadows" in outcomes["json.py"]
    assert set(outcomes) == {"good.py", "threestudio-broken", "json.py"}
    assert registry.find("ext-good").__name__ == "Good"
    with pytest.raises(RegistryError, match="a_package_that_is_absent"):
        registry.find("ext-from-the-broken-one")


def test_no_custom_folder_is_fine(tmp_path):
    assert load_custom_modules(tmp_path / "absent") == []


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "numpy", "numba", "pytorch_lightning")
    code = f"import sys, threestudio_redream; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_runtime_names_resolve_and_match_all():
    from threestudio_redream import runtime

    assert sorted(runtime._NAMES) == sorted(runtime.__all__) == dir(runtime)
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    with pytest.raises(AttributeError):
        _ = runtime.absent


def test_upstream_host_hands_out_its_own_classes(tmp_path):
    fake = tmp_path / "threestudio"
    for part in ("utils", "systems"):
        (fake / part).mkdir(parents=True)
        (fake / part / "__init__.py").write_text("")
    (fake / "__init__.py").write_text("def register(name):\n    return lambda c: c\ndef find(name):\n    return name\n")
    (fake / "utils" / "base.py").write_text("class BaseModule: origin = 'upstream'\n")
    code = (
        "import threestudio\n"
        "from threestudio_redream.runtime.host import upstream\n"
        "from threestudio_redream import runtime\n"
        "assert upstream() is threestudio\n"
        "assert runtime.BaseModule.origin == 'upstream'\n"
        "assert runtime.find('x') == 'x'\n"
    )
    # the package's own import would load our systems on the fake host, so go through runtime only
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport threestudio_redream.catalog\n{code}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
