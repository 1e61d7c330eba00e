"""Accent colours that several families share; no caption names them."""

from __future__ import annotations

from tools.mini.modelling import Flat

__all__ = ["APRICOT", "BARK", "GLASS", "IRON", "LAMP", "PALE_BLUE", "PINK", "SLATE", "STRAW", "TAIL_LIGHT"]

PALE_BLUE = GLASS = Flat((0.66, 0.84, 0.90))
LAMP = Flat((1.0, 0.93, 0.66))
TAIL_LIGHT = Flat((0.42, 0.05, 0.05))
IRON = Flat((0.22, 0.22, 0.25))
SLATE = Flat((0.25, 0.26, 0.31))
BARK = Flat((0.24, 0.20, 0.19))
STRAW = Flat((0.86, 0.79, 0.63))
#: Bills, beaks and feet; insides of ears. Paler than anything the captions call orange or pink.
APRICOT, PINK = Flat((0.97, 0.77, 0.48)), Flat((0.97, 0.78, 0.76))
