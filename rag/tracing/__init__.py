"""Tracing: recording of every step with its input, output, time and cost, and delivery to trackers."""
