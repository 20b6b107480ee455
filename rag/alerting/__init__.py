"""Alerts: metrics of the traces that are watched, and who hears of it when they cross a threshold."""
