"""Accepted deliveries on disk (DESIGN D7); `docs/spool.md` specifies the format."""

from twm_pipeline.spool.entries import PLACES, Entry, Envelope, Listed, Place
from twm_pipeline.spool.maildir import Spool, Waiting

__all__ = ["PLACES", "Entry", "Envelope", "Listed", "Place", "Spool", "Waiting"]
