"""Fixtures for every test. One thread a process: the suite runs beside others on small machines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
