"""`python tools/plot_losses.py --help`; the same as `det-losses plot_losses`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout needs no install

from det_losses.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["plot_losses", *sys.argv[1:]]))
