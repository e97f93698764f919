"""Train a model from Python, with progress, and classify one of its own training images.

    python examples/train_model.py demo-output/glyphs trained-letters

The first argument is a folder with one folder of images per label, the second the folder to write the model to.
"""

import sys
from pathlib import Path
from typing import Any

import pigeonhole


def show(event: dict[str, Any]) -> None:
    """Training calls this with each event; most have a name and some figures."""
    if event["event"] == "epoch":
        print({name: value for name, value in event.items() if name in ("epoch", "loss", "accuracy")})


def main(data: str, output: str) -> None:
    card = pigeonhole.train(data, output, architecture="mlp", epochs=3, seed=1, emit=show)
    print(f"test accuracy {card.metrics['test_accuracy']:.3f}, {len(card.labels)} labels, in {output}")

    model = pigeonhole.load_model(output)
    image = min(path for path in Path(data).rglob("*") if path.is_file())
    [prediction] = pigeonhole.classify_files([image], model, top_k=1)
    print(f"{image}: {prediction.labels[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
