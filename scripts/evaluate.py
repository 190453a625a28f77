"""`sora2 evaluate` as a file: `python scripts/evaluate.py --checkpoint DIR --out DIR`."""

import sys

from sora2.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
