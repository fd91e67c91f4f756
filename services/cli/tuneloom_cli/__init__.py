"""The `tuneloom` command, and `up`: all services on one machine. A client of the same contracts as everybody."""
