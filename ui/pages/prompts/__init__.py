"""The prompts tab, with the lab."""
