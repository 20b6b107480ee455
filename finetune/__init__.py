"""Training of the models that ragsmith serves: nothing is trained yet, the package holds its place in the house."""
