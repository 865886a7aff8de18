"""``python -m daphne_ng``."""

from daphne_ng.cli import CommandLineInterface

if __name__ == "__main__":
    CommandLineInterface.entrypoint()
