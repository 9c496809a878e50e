"""`python -m himac_lite`: the script `himac-lite`, for launchers that start a module."""

import sys

from himac_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
