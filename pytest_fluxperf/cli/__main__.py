"""``python -m pytest_fluxperf.cli``: the ``fluxperf`` command where the package is not installed."""

import sys

from pytest_fluxperf.cli import main

sys.exit(main())
