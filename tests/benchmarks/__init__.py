"""What measures and does not assert: ``python -m tests.benchmarks --data FOLDER``."""
