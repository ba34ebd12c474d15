"""Quiet libraries: imported by the process that cells are forked from, and nowhere else. Importing it does it."""

import logging

# bitsandbytes recommends an optional CPU kernel at each import, whether or not anything is quantised.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
