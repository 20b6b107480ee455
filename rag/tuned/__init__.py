"""Models that were tuned with ragsmith: their networks, and how they get into the compiled runtime."""
