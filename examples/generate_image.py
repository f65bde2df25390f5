"""A picture from a prompt in English or Russian.

python examples/generate_image.py "Ландшафт с горами и рекой" landscape.png
"""

from __future__ import annotations

import argparse
import sys
import time

from izograf import generate_image_from_text
from izograf.schema.errors import IzografError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("output_file", help="a .png")
    parser.add_argument("--model", help="default: scenes-text")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    try:
        generate_image_from_text(
            options.prompt, options.output_file, model=options.model, seed=options.seed
        )
    except IzografError as error:
        sys.exit(str(error))
    print(f"{options.output_file}: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
