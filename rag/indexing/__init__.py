"""Indexes of corpora: dense and lexical, kept consistent with the database."""
