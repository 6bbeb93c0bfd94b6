"""Writes docs/talks.md: python -m docs.talks

Fills its blocks and draws docs/figures/talks.png, from docs/talks/published.py and the results.json
files of the experiments. Run it after a table of the experiments has changed.
"""

import pathlib

from docs.talks import blocks, figure

PAGE = pathlib.Path(__file__).parents[1] / "talks.md"

if __name__ == "__main__":
    PAGE.write_text(blocks.fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
    print(figure.write())
