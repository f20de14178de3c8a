"""``python -m sessions_server`` is ``sessions``."""

import sys

from sessions_server.cli import main

sys.exit(main())
