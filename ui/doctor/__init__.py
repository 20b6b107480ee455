"""Checks of everything that a run needs, with the fix of every failure."""
