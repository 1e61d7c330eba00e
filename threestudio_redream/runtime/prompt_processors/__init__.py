"""Prompt processors: from a prompt to text embeddings, by view direction."""
