"""The parts of a running ragsmith, and how they are put together."""
