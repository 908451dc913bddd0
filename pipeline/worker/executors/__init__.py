"""Where attempts run: each executor starts one and gives a handle on it; `local.py` as a process on this machine."""
