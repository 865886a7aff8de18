"""Where the command line's settings come from: flags, variables of the environment, a file.

They concern the command line alone: a `Config` made in Python, ``runserver`` and the test server read none of them.
"""
