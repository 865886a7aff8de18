"""Connections, and what reads and writes on them for each protocol."""
