"""What can be said about a network without training it: counts, comparisons, pictures."""
