"""Quiet imports of the process that cells are forked from: importing this file is what it does."""

import logging

# bitsandbytes recommends an optional CPU kernel at each import, whether or not anything is quantised.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
