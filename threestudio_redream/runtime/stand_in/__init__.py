"""``import threestudio`` for other people's extensions, under our own launcher.

``hook`` answers the import by ``table``, or from a ``checkout`` of upstream. The other modules are names that such
extensions import and that nothing else here needs.
"""

from __future__ import annotations

from threestudio_redream.runtime.stand_in.hook import VERSION, debug, info, install, log, uninstall, warn
from threestudio_redream.runtime.stand_in.table import PROVIDED

__all__ = ["PROVIDED", "VERSION", "debug", "info", "install", "log", "uninstall", "warn"]
