"""A picture of the GPU benchmark: milliseconds per shape, every contender beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(results: dict[str, Any], path: Path) -> Path:
    """Bars of forward and backward milliseconds, a panel per shape; contenders that did not run are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = results["attention"]
    columns = min(3, len(shapes))
    rows = -(-len(shapes) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.5 * columns, 2.6 * rows), squeeze=False)
    for axis, shape in zip(axes.flat, shapes, strict=False):
        ran = [r for r in shape["rows"] if "ms" in r["forward"]]
        names = [r["name"] for r in ran]
        forward = [r["forward"]["ms"] for r in ran]
        backward = [r["backward"].get("ms", 0.0) for r in ran]
        axis.barh(names, forward, label="forward", color="#4477aa")
        axis.barh(names, backward, left=forward, label="backward", color="#cc6677")
        axis.invert_yaxis()
        axis.set_title(
            f"{shape['shape']}: {shape['tokens']} tokens, density {shape['density']:.3f}", fontsize=9
        )
        axis.set_xlabel("ms", fontsize=8)
        axis.tick_params(labelsize=8)
    for axis in list(axes.flat)[len(shapes) :]:
        axis.axis("off")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{results['card']}, torch {results['torch']}, triton {results['triton']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
