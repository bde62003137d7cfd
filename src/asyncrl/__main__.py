"""`python -m asyncrl` is `asyncrl`."""

import sys

from asyncrl.cli import command

sys.exit(command())
