"""Grounded answers over documents: loading, indexing, retrieval, the answer chain, and traces."""
