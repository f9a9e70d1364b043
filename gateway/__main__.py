"""`video-gateway` and `python -m gateway`."""

import gc

# What is loaded is there to stay. To look for garbage in it, while it is made and again and again
# later, would take a quarter of the time until a command begins.
gc.disable()

from gateway.cli.root import main  # noqa: E402 - it loads everything

gc.freeze()
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main()
