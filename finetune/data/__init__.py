"""Sources of training rows, one module per kind."""
