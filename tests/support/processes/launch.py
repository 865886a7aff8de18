"""Starts a program with descriptors at given numbers, as systemd, circus and supervisor do.

``launch.py FROM:TO,... [NAME=VALUE ...] -- PROGRAM ...``. A value ``@pid`` stands for the process id of the program.
"""

import os
import sys

end = sys.argv.index("--")
moves, *variables = sys.argv[1:end]
pairs = [tuple(map(int, move.split(":"))) for move in moves.split(",") if move]
# First out of each other's way: dup() gives non-inheritable descriptors, and the lowest numbers that are free.
copies = []
for source, target in pairs:
    copy = os.dup(source)
    while copy <= max(to for _, to in pairs):
        copy = os.dup(copy)
    copies.append((copy, target))
for source, _ in pairs:
    os.close(source)
for copy, target in copies:
    os.dup2(copy, target, inheritable=True)
for variable in variables:
    name, _, value = variable.partition("=")
    os.environ[name] = str(os.getpid()) if value == "@pid" else value
os.execv(sys.argv[end + 1], sys.argv[end + 1 :])
