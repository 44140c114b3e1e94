"""Optimisers and learning-rate schedules. An optimiser changes weights by gradients; the schedule says how far, and when."""
