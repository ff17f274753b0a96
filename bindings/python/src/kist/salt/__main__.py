"""``python -m kist.salt``: see `kist.salt.command`."""

import sys

from .command import main

sys.exit(main())
