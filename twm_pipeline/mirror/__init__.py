"""The mirror: our PostgreSQL copy of both vendors, with rows and checkpoints in one transaction."""
