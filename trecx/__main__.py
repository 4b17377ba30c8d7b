"""`python -m trecx`: see `trecx.cli`."""

import sys

from trecx.cli import main

sys.exit(main())
