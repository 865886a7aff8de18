"""What a test changes while the server runs."""

GREETING = "first"
