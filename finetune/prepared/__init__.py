"""From a raw table of prompts and completions to a versioned, split data set to train on."""
