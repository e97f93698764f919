"""Publish a checkpoint of timm, so that jobs can use it.

    python examples/import_timm_checkpoint.py resnet18 labels.json birds        (needs: pip install timm)

labels.json lists the labels in the order of the network's outputs. Replace `timm.create_model(...)` by your own trained
network. Weights that have torchvision's names can be imported (those of ResNets, for instance). Any others are refused
with the names that do not match.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
from safetensors.torch import save_file


def main(architecture: str, labels: str, name: str) -> None:
    network = timm.create_model(architecture, num_classes=len(json.loads(Path(labels).read_text(encoding="utf-8"))))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, f"{architecture}.safetensors")
        save_file(network.state_dict(), weights)
        command = ["pigeonhole", "models", "import", str(weights), "--name", name, "--arch", architecture]
        subprocess.run([*command, "--labels", labels], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
