"""Life inside upstream threestudio: what happens when its ``launch.py`` imports this package.

``enter`` checks the environment and registers our classes; ``gate`` knows the versions; ``placeholders`` keep the
reason of a refusal where the names would be. ``system``, ``prompts`` and ``names`` are upstream's base classes and
registry with what our classes rely on. ``shim`` writes the file that leads here.
"""
