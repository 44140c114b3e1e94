"""The entrance: raw files become clean documents, and every document that is turned away is told why. No torch."""
