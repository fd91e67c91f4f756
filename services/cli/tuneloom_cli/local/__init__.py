"""A whole installation on one machine: its home directory, its processes, `up` and `down`."""
