"""Passages for a query: search, filters, reranking."""
