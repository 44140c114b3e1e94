"""Training: one loop for every stage, its state on disk, its precision and its figures."""
