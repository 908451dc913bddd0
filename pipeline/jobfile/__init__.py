"""The job file: its fields and names, reading it, and what is said of a wrong one."""
