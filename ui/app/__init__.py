"""The parts of a running ragsmith, and their wiring."""
