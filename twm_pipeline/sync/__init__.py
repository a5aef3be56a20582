"""Composition: what a pass reads, in which order, and how it is stored."""
