"""Text encoders, behind one interface for all runtimes."""

from __future__ import annotations

from rag.encoders.encoder import Encoder
from rag.encoders.encoder_files import ModelFiles, locate_model
from rag.encoders.encoder_opening import open_encoder

__all__ = ["Encoder", "ModelFiles", "locate_model", "open_encoder"]
