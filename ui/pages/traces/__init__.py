"""The traces tab."""
