"""Tuning: data, recipes, runs, and the adapters that come of them."""
