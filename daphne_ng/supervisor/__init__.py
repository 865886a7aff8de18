"""The processes: a supervisor that owns the listening sockets, and the workers that serve.

Nothing here knows a protocol. The supervisor starts the same command again for each worker, in a fresh interpreter, and
tells it by one environment variable what it is. Whatever happens (a restart, new code, a worker that leaks) is one
operation: a new worker is ready before an old one goes.
"""
