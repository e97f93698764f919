"""Classify images over HTTP with tritonclient, which needs nothing of Pigeonhole.

pip install 'tritonclient[http]'
python examples/infer_with_tritonclient.py localhost:8080 birds images/*.jpg
"""

import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.http as http

PATIENCE_S = 60


def main(address: str, model: str, *paths: str) -> None:
    client = http.InferenceServerClient(address)
    end = time.monotonic() + PATIENCE_S
    while not client.is_model_ready(model):  # the first question lets a worker load the model
        if time.monotonic() > end:
            sys.exit(f"{model} is not ready after {PATIENCE_S} s")
        time.sleep(0.2)
    images = np.array([Path(path).read_bytes() for path in paths], dtype=np.object_)
    tensor = http.InferInput("image", [len(images)], "BYTES").set_data_from_numpy(images)
    outputs = [http.InferRequestedOutput(name) for name in ("label", "score", "reason")]
    outputs.append(http.InferRequestedOutput("scores", class_count=3))

    result = client.infer(model, [tensor], outputs=outputs)

    labels, scores, reasons, best = (result.as_numpy(name) for name in ("label", "score", "reason", "scores"))
    for place, path in enumerate(paths):
        if reasons[place]:
            print(f"{path}: {reasons[place].decode()}")
        else:
            print(f"{path}: {labels[place].decode()} {scores[place]:.2f} ({b', '.join(best[place]).decode()})")


if __name__ == "__main__":
    main(*sys.argv[1:])
