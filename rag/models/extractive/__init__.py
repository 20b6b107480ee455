"""Extractive reading: the sentence or span that answers a question, and the probability that it does."""
