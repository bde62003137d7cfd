"""Build the host, once and ahead of the first environment: `python -m asyncrl.envs.torcs`."""

import sys

from asyncrl.envs.torcs.build import build_host
from asyncrl.errors import UserError

if __name__ == "__main__":
    try:
        print(build_host())
    except UserError as error:
        print(f"asyncrl: {error}", file=sys.stderr)
        sys.exit(2)
