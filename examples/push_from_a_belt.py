"""A belt controller: push each item's image to a line, open the gate of its bin, report where it went.

    python examples/push_from_a_belt.py postcards redis://localhost:6379/0 images/*.jpg

The line exists (`pigeonhole lines create`), and a worker runs. Without a server every item goes to the bin `manual`.
"""

import sys
import time

from orchestrator.lines import LineClient


def open_gate(item: str, bin_name: str) -> str:
    """Stands for the machine: open the gate, and say where the item really went."""
    print(f"{item} -> {bin_name}")
    return bin_name


def main(line: str, url: str, *images: str) -> None:
    with LineClient(line, url, deadline=0.5, fallback="manual") as client:
        for number, image in enumerate(images):
            item = f"{number:06d}"
            triggered_at = time.time()  # the photocell; from here the deadline counts
            answer = client.push(image, item, triggered_at=triggered_at)
            if answer.reason is not None:
                print(f"{item}: {answer.reason} {answer.error or ''}".rstrip())
            client.discharged(item, 1, open_gate(item, answer.bin))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: push_from_a_belt.py LINE URL IMAGE...")
    main(*sys.argv[1:])
