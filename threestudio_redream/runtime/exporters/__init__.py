"""Exporters: from a trained scene to files."""
