"""The worker: it claims jobs, has an executor run them, and records how they ended."""
