"""Simulated Teamwork, Missive and Airtable accounts over HTTP on loopback, with the documented quirks."""

from twm_pipeline.sandbox.answers import ALL_ANSWERS
from twm_pipeline.sandbox.client import SandboxControl, SandboxError
from twm_pipeline.sandbox.faults import FAULT_KINDS
from twm_pipeline.sandbox.options import (
    AIRTABLE_BASE_ID,
    AIRTABLE_FOREIGN_BASE_ID,
    AIRTABLE_TOKEN,
    MISSIVE_TOKEN,
    TEAMWORK_KEY,
    SandboxOptions,
)
from twm_pipeline.sandbox.server import Sandbox, serve

__all__ = [
    "AIRTABLE_BASE_ID",
    "AIRTABLE_FOREIGN_BASE_ID",
    "AIRTABLE_TOKEN",
    "ALL_ANSWERS",
    "FAULT_KINDS",
    "MISSIVE_TOKEN",
    "TEAMWORK_KEY",
    "Sandbox",
    "SandboxControl",
    "SandboxError",
    "SandboxOptions",
    "serve",
]
