"""`python -m feedback_app`: the same as `feedback-app`."""

import sys

from feedback_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
