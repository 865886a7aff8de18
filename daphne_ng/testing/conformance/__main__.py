"""The command line of the suite."""

from __future__ import annotations

import sys

from daphne_ng.testing.conformance.command import main

sys.exit(main())
