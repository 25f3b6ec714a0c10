"""The table of orders in docs/peers.md: what each sampler of another library claims, and what it shows.

    python -m tests.benchmarks.orders

Half a minute or so. A test holds the table to the same measurement.
"""

from __future__ import annotations

import sys

from diffusion.samplers import samplers
from tests.diffusion.peer_orders import rows
from tests.diffusion.test_peers import NAMES

HEAD = "| library | sampler | claimed | normal law | mixture |\n|---|---|---|---|---|"


def main() -> None:
    """Print the table."""
    sys.stdout.write(HEAD + "\n")
    for row in rows(NAMES, samplers.create):
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
