from . import balloon  # noqa: F401
