"""Stored documents as separate pages."""
