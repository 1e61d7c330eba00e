"""Prompt processors of this project."""
