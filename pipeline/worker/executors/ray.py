"""Ray, by its jobs."""
