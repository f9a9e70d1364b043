"""`video-gateway` and `python -m gateway`."""

from gateway.cli.root import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
