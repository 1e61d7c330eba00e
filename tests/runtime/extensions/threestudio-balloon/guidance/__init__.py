from . import colour  # noqa: F401
