"""OpenAI's client at a running `izograf serve`: two pictures, and one of them repainted.

    izograf serve
    python examples/openai_client.py out/

Where somebody must log in, set OPENAI_API_KEY to a key of `izograf key create`.
"""

from __future__ import annotations

import argparse
import base64
import os
from pathlib import Path

from openai import OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    key = os.environ.get("OPENAI_API_KEY", "not needed on this machine")
    with OpenAI(base_url=options.url, api_key=key) as client:
        made = client.images.generate(
            model="scenes", prompt="snowy mountains", n=2, response_format="b64_json",
            extra_body={"seed": 7, "num_inference_steps": 10},
        )  # fmt: skip
        paths = []
        for number, picture in enumerate(made.data or [], start=1):
            paths.append(options.folder / f"mountain-{number}.png")
            paths[-1].write_bytes(base64.b64decode(picture.b64_json or ""))
        edited = client.images.edit(
            model="scenes", image=paths[0], prompt="a glacier", response_format="b64_json",
            extra_body={"seed": 7, "strength": 0.6},
        )  # fmt: skip
        paths.append(options.folder / "glacier.png")
        paths[-1].write_bytes(base64.b64decode((edited.data or [])[0].b64_json or ""))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
