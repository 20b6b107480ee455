"""Texts to vectors: one encoder behind one seam, whichever runtime carries it."""

from __future__ import annotations

from rag.encoder.base import Encoder
from rag.encoder.locate import ModelFiles, locate_model
from rag.encoder.open import open_encoder

__all__ = ["Encoder", "ModelFiles", "locate_model", "open_encoder"]
