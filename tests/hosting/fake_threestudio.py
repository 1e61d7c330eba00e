"""A folder that looks like a checkout of threestudio: just enough for extensions to be imported and to register.

Written from the contract alone. It trains nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PACKAGE = {
    "__init__": """
__modules__, __version__ = {}, "0.2.3"

def register(name):
    def decorator(cls):
        if name in __modules__:
            raise ValueError(f"{name} exists")
        __modules__[name] = cls
        return cls
    return decorator

def find(name):
    return __modules__[name]

from threestudio.systems import base
from threestudio.models.geometry import implicit_volume
from threestudio.models.prompt_processors import base
""",
    "utils/misc": """
import torch

def get_device():
    return torch.device("cpu")
""",
    "utils/base": """
from dataclasses import dataclass
import torch

class Updateable:
    def update_step(self, epoch, global_step, on_load_weights=False):
        pass

class BaseObject(Updateable):
    @dataclass
    class Config:
        pass

class BaseModule(torch.nn.Module, Updateable):
    @dataclass
    class Config:
        weights: str = None
""",
    "systems/base": """
from dataclasses import dataclass, field

class BaseSystem:
    @dataclass
    class Config:
        loss: dict = field(default_factory=dict)

class BaseLift3DSystem(BaseSystem):
    @dataclass
    class Config(BaseSystem.Config):
        exporter_type: str = "mesh-exporter"
""",
    "models/geometry/implicit_volume": """
from dataclasses import dataclass
import threestudio
from threestudio.utils.base import BaseModule

@threestudio.register("implicit-volume")
class ImplicitVolume(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        n_feature_dims: int = 3
""",
    "models/prompt_processors/base": """
from dataclasses import dataclass
from threestudio.utils.base import BaseObject

class PromptProcessor(BaseObject):
    @dataclass
    class Config(BaseObject.Config):
        prompt: str = ""
""",
}

#: Loads what is in custom/, each failure printed and passed over, then says what is registered or looks a name up.
_LAUNCH = """
import importlib.util, logging, os, sys, traceback

if os.environ.get("HIDE_INSTALLED"):
    sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
    sys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, "threestudio_redream"))]
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
if os.environ.get("PACKAGE_FIRST"):
    importlib.import_module(os.environ["PACKAGE_FIRST"])
import threestudio

for name in sorted(os.listdir("custom")):
    path = os.path.join("custom", name)
    if os.path.isfile(path) and not path.endswith(".py") or name == "__pycache__":
        continue
    module_name = os.path.splitext(path)[0] if os.path.isfile(path) else name
    entry = path if os.path.isfile(path) else os.path.join(path, "__init__.py")
    try:
        spec = importlib.util.spec_from_file_location(module_name, entry)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
        print("IMPORTED", name)
    except Exception as error:
        print("IMPORT FAILED", name, type(error).__name__, error)
print("NAMES", len([n for n in threestudio.__modules__ if "re" in n]))
for name in sys.argv[1:]:
    try:
        cls = threestudio.find(name)
        package = sys.modules.get("threestudio_redream")
        print("FOUND", name, cls.__module__, package and os.path.dirname(package.__file__))
    except Exception as error:
        print("NOT FOUND", name, type(error).__name__, error)
        continue
    if "hosting.placeholders" in cls.__module__:
        try:
            cls({})
        except Exception as error:
            print("REFUSED", name, type(error).__name__, error)
"""


def make_checkout(folder: Path) -> Path:
    """Write the checkout and return its folder."""
    for name, text in _PACKAGE.items():
        file = folder / "threestudio" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        for parent in file.parents:
            if parent == folder:
                break
            (parent / "__init__.py").touch()
    (folder / "launch.py").write_text(_LAUNCH, encoding="utf-8")
    (folder / "custom").mkdir()
    return folder


def launch(checkout: Path, *names: str, path: tuple[Path, ...] = (ROOT,), **environment: str) -> str:
    """What its launcher prints after loading custom/ and looking ``names`` up; ``path`` is put before sys.path."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "launch.py", *names],
        cwd=checkout,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
