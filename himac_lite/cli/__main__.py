"""`python -m himac_lite.cli`, where the script `himac-lite` is not on the path."""

import sys

from himac_lite.cli import main

sys.exit(main())
