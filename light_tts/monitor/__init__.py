"""Live view of the machine and the server; `scripts/monitor.py` is its command."""
