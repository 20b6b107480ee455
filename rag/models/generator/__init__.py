"""The small generator: the encoder's base model, tuned to write from left to right what a prompt asks for."""
