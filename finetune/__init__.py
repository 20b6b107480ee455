"""The place of training in the house: nothing is trained yet."""
