"""Prompts x methods x seeds in one harness: runs, scores, tables with paired intervals, and a page to look at."""
