"""Backgrounds: the colour behind the object, by direction."""
