"""Draws gains.svg from the figures of results/index.md: `python docs/gains.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

# Points over prompt tuning, mean of six targets: (gain, low, high) for the 6-layer and the 3-layer model.
GAINS = {
    "promptpanda's choice": ((5.2, 3.9, 6.6), (-0.3, -1.8, 1.0)),
    "best source on validation data": ((4.3, 3.2, 5.5), (0.5, -0.3, 1.2)),
    "random source": ((1.1, 0.2, 2.1), (0.1, -0.5, 0.7)),
    "PANDA, random source": ((-0.3, -0.7, 0.1), (0.1, -0.3, 0.5)),
}


def main() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "gains", "svg.fonttype": "none", "font.size": 10})
    figure, axes = pyplot.subplots(1, 2, sharex=True, sharey=True, figsize=(8, 2.4), layout="constrained")
    for place, (panel, title) in enumerate(zip(axes, ("6-layer BERT", "3-layer BERT"), strict=True)):
        for row, gains in enumerate(reversed(GAINS.values())):
            gain, low, high = gains[place]
            panel.plot([low, high], [row, row], color="#33608c", linewidth=2)
            panel.plot(gain, row, "o", color="#33608c")
        panel.axvline(0, color="grey", linewidth=1)
        panel.set_yticks(range(len(GAINS)), list(reversed(GAINS)))
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel("points over prompt tuning, 95 % interval", fontsize=9)
    figure.savefig(Path(__file__).parent / "gains.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
