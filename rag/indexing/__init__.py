"""The index of a corpus: vectors, words, and what keeps them in step."""
