"""Airtable as a place to publish to: which fields there are, how cells read, set-up, and the calls."""
