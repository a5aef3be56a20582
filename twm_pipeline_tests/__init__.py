"""Tests of `twm_pipeline`; the tree mirrors the package."""
