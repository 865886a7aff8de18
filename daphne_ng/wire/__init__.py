"""Pure protocol logic: bytes in, calls on a sink, bytes out. No I/O, no clock, no event loop."""
