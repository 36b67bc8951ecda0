"""`python -m launcher`, which is what the checkout's script runs."""

from launcher.main import run

run()
