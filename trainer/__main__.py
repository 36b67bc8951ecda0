"""`python -m trainer`."""

import sys

from trainer.cli import main

if __name__ == "__main__":  # drawing's processes import it again
    sys.exit(main())
