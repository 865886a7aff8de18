"""Twisted I/O, kept thin: transports, protocols and the one place that installs a reactor."""
