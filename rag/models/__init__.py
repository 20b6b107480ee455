"""Chat models behind one seam: the extractive reader, local models, remote servers."""
