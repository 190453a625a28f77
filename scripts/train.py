"""The same as `sora2 train`."""

import sys

from sora2.cli import main

raise SystemExit(main(["train", *sys.argv[1:]]))
