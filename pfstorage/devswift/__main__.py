"""Start the development server: ``python -m pfstorage.devswift``."""

import sys

from pfstorage.devswift.server import main

sys.exit(main())
