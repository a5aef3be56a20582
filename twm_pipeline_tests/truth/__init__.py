"""Comparisons of the mirror with what is true, by other means than the product's own parser."""
