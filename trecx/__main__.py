"""`python -m trecx`: see `trecx.cli`."""

import sys

from trecx.command import catch_signals

if __name__ == "__main__":  # and not where a worker process imports it
    catch_signals()  # before what takes long to import

    from trecx.cli import main

    sys.exit(main())
