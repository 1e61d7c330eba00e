"""Build hook: a wheel also carries the configurations and the mini index, which lie beside the package in a clone.

Everything else is declared in ``pyproject.toml``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SHIPPED = ("custom_configs", "retrieval_index/mini")


class BuildWithShippedFiles(build_py):
    """Copies them to ``threestudio_redream/shipped``, where :mod:`threestudio_redream.shipped` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the clone itself is in use
            return
        target = Path(self.build_lib) / "threestudio_redream" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            shutil.copytree(HERE / name, target / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithShippedFiles})
