"""Stored documents as pages of their own."""
