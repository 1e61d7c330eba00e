"""Measures of what a run made."""
