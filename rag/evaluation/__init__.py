"""Measuring answers against what is known of them."""
