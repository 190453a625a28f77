"""`sora2 train [overrides]`: compose the Hydra config, check it as a whole, train."""

from __future__ import annotations

from sora2.train.compose import compose_config

USAGE = """usage: sora2 train [key=value ...]

Hydra overrides over configs/train.yaml, for example
  sora2 train experiment=toybox_demo trainer.max_samples=20000
  sora2 train experiment=film dry_run=true        print the plan, allocate nothing
  sora2 train experiment=toybox_demo trainer=ddp trainer.devices=8
A run continues from its newest checkpoint when the same command is given again; another one has another name=."""


def main(argv: list[str]) -> int:
    if any(a in ("-h", "--help") for a in argv):
        print(USAGE)
        return 0
    config = compose_config(argv)
    from sora2.train.run import train

    train(config)
    return 0
