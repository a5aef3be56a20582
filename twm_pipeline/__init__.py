"""Teamwork tasks and Missive e-mail, complete and current, in your own PostgreSQL and Airtable."""
