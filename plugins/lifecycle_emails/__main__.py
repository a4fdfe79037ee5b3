"""``python -m lifecycle_emails``: the ``lifecycle`` command where the package is not installed."""

import sys

from lifecycle_emails.cli import main

sys.exit(main())
