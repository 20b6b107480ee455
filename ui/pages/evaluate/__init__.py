"""The evaluate tab."""
