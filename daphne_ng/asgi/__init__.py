"""The bridge between the port and ASGI applications, written once for every protocol."""
