"""The command line: commands, their arguments, and what a terminal shows."""
