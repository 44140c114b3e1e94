"""How good a model is: bits per byte, answers checked by a program, and how sure one can be of a difference."""
