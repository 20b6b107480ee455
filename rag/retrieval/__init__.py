"""Retrieval of passages: search, filters, reranking."""
