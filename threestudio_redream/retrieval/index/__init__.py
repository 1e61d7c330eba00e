"""The index on disk: immutable parts, a manifest that names every file, readers, writers, approximate search."""
