"""What stands between a listening socket and a protocol."""
