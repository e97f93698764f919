"""Classify images from Python and print one line per image.

    python examples/classify_images.py ~/.pigeonhole/models/letters demo-output/characters/*.png

The first argument is the folder of a published model (the latest version is used) or of one trained by train_model.py.
"""

import sys

import pigeonhole


def main(model_folder: str, *images: str) -> None:
    model = pigeonhole.load_model(model_folder)
    for image, prediction in zip(images, pigeonhole.classify_files(images, model, top_k=3), strict=True):
        if prediction.ok:
            scores = dict(zip(prediction.labels, prediction.scores, strict=True))
            best = ", ".join(f"{label} {score:.3f}" for label, score in scores.items())
            print(f"{image}: {best} ({prediction.decision or 'no decision'})")
        else:
            print(f"{image}: {prediction.error_code}: {prediction.error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
