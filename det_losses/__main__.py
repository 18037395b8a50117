"""``python -m det_losses TOOL ...``."""

from det_losses.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
