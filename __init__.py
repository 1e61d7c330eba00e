"""Way in for threestudio: clone this repository into ``custom/`` and its launcher imports this file.

The package proper is ``threestudio_redream`` beside it. If one is installed or imported already, that one is used and
this clone says so; names are registered once in any case. See docs/upstream.md.
"""

import importlib
import importlib.util
import logging
import sys
from pathlib import Path

_CLONE = Path(__file__).resolve().parent
_PACKAGE = "threestudio_redream"


def _enter() -> None:
    if __name__ == _PACKAGE:  # a clone in a folder of that name: make way for the package itself
        sys.modules.pop(_PACKAGE, None)
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is None:
        sys.path.append(str(_CLONE))  # last, so that nothing else here hides anything
    package = importlib.import_module(_PACKAGE)
    package.enter_host()
    used = Path(package.__path__[0]).resolve().parent
    if used != _CLONE:
        logging.getLogger("pytorch_lightning").warning(
            "threestudio-redream in %s is used; the clone in %s is not. Remove one of them.", used, _CLONE
        )


_enter()
