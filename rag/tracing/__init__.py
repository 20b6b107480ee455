"""Traces: what every step saw, produced, took and cost, and where that goes."""
