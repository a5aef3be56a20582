"""The Dagster side: storage, resources, assets, jobs, schedules; the only place with Dagster types."""
