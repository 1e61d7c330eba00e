"""One module per file format; each has ``parse(data, files, limits) -> Parsed``."""
