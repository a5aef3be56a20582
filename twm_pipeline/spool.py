"""Accepted deliveries on disk (DESIGN D7)."""
