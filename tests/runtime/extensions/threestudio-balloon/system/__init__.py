from . import blow  # noqa: F401
