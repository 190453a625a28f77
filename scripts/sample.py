"""`sora2 sample` as a file, for `accelerate launch scripts/sample.py ...`."""

import sys

from sora2.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["sample", *sys.argv[1:]]))
