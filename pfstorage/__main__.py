"""``python -m pfstorage``."""

import sys

from pfstorage.cli import main

sys.exit(main())
