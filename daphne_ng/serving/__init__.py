"""The parts of the server, and what a process of its own needs."""
