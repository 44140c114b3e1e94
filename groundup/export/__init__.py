"""The way out: a trained model in the forms that other programs load."""
