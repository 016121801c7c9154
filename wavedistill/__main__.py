"""``python -m wavedistill``: the command line, also under ``torchrun -m``."""

from __future__ import annotations

import sys

from wavedistill.cli import main

sys.exit(main())
