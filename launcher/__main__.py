"""`python -m launcher`, which is what the checkout's script runs."""

from launcher.main import run

if __name__ == "__main__":  # processes that a command starts may import it again
    run()
