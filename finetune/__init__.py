"""Fine-tuning: data, recipes, runs, and the adapters they produce."""
