"""Sweeps: many trainings of one recipe, each with other values of some of its fields."""
