"""Chat models behind one interface: the extractive reader, local models, remote servers."""
