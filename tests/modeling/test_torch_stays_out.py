import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_models import describe_answers, make_random_model

ROOT = Path(__file__).resolve().parents[2]
# What commands use: whole rooms, and single modules of rooms in which torch lives.
FREE_ROOMS = ("data", "evaluation", "images", "metrics", "registry", "report")
FREE_MODULES = (
    "durable", "errors", "names", "networks.architectures", "networks.recipes", "networks.torchvision_table",
    "networks.weights", "networks.default_network", "networks.pretrained.at_hand",
    "inference.bisection", "inference.decoders", "inference.measure",
    "inference.pipeline", "inference.prediction", "inference.engines.choice", "inference.graph_classifier",
    "inference.load_at_once", "inference.scores",
    "explain.drawing", "explain.request", "training.process", "training.request",
    "training.fit.history",
)  # fmt: skip
FORBIDDEN = ("torch", "torchvision", "celery", "redis", "click")
FREE = sorted(
    [f"modeling.{name}" for name in FREE_MODULES]
    + [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in FREE_ROOMS
        for path in (ROOT / "modeling" / room).rglob("*.py")
        if path.name != "__init__.py"
    ]
)


# Imports each module in a process of its own, forked from one that has only what all of them may import, and nothing of
# ours: as many interpreters would take a minute.
_EACH_ALONE = """if True:
    import concurrent.futures, gc, importlib, json, logging, os, sys
    import numpy.ma, PIL.Image, pydantic.types, simplejpeg
    PIL.Image.init()
    gc.freeze()
    forbidden, modules = json.loads(sys.argv[1])
    said = {}
    for module in modules:
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                importlib.import_module(module)
                found = [name for name in forbidden if name in sys.modules]
            except BaseException as err:
                found = [repr(err)]
            os.write(writing, json.dumps(found).encode())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            found = json.load(pipe)
        os.waitpid(pid, 0)
        if found:
            said[module] = found
    print(json.dumps(said))
"""


def _imported_by_each(modules: list[str], forbidden: Sequence[str]) -> dict[str, list[str]]:
    """What each module imports of that, or why it cannot be imported alone; modules with neither are left out."""
    found: dict[str, list[str]] = json.loads(_printed(_EACH_ALONE, json.dumps([forbidden, modules])))
    return found


def test_everything_but_networks_and_training_imports_alone_and_without_torch():
    assert len(FREE) > 50
    assert _imported_by_each(FREE, FORBIDDEN) == {}


def test_a_module_that_imports_what_it_must_not_or_fails_is_found_out():
    found = _imported_by_each(["modeling.errors", "modeling.registry.store", "modeling.lost"], ["modeling.durable"])

    assert found.keys() == {"modeling.registry.store", "modeling.lost"}
    assert found["modeling.registry.store"] == ["modeling.durable"]
    assert "ModuleNotFoundError" in found["modeling.lost"][0]


def _printed(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_who_imports_the_compiler_while_it_is_put_off_gets_the_real_one():
    code = """if True:
        import sys
        from modeling.networks.dynamo import deferred_compiler_import
        with deferred_compiler_import():
            from torch._dynamo.utils import counters
            import torch._dynamo
        import torch._dynamo.utils as real
        print(counters is real.counters, real is sys.modules["torch._dynamo.utils"], real.__file__ is not None)
    """

    assert _printed(code) == "True True True\n"


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """What one process says that comes to need ever more of torch: each costs seconds to start."""
    code = """if True:
        import json, sys
        said = {}
        def has(name): return name in sys.modules

        import modeling.training.train, modeling.inference.classifier
        said["torchvision"] = has("torchvision")

        import torch
        from modeling.networks.build import blank_network
        from modeling.images.preprocessing import Preprocessing
        for name in ("cnn", "convnext_tiny", "resnet18", "mobilenet_v2", "vit_b_32"):
            network = blank_network(name, Preprocessing("RGB", 224, 224), 2).eval()
        with torch.inference_mode():
            said["shape"] = list(network(torch.zeros(1, 3, 224, 224)).shape)
        said["answered"] = [has("torchvision"), has("torch._dynamo"), has("sympy")]

        from modeling.training.fit import plain_optimizers
        from modeling.training.train import deterministic_kernels
        def trained(kind):
            weights = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
            optimizer = kind([weights], lr=0.1, weight_decay=0.01, fused=True)
            for step in range(4):
                optimizer.zero_grad()
                (weights.sin() * step).sum().backward()
                optimizer.step()
                optimizer.load_state_dict(optimizer.state_dict())
            return weights
        plain = trained(plain_optimizers.SGD), trained(plain_optimizers.AdamW)
        with deterministic_kernels(False):
            said["trained"] = [has("torch._dynamo"), torch.are_deterministic_algorithms_enabled()]

        from torchvision.ops.roi_align import is_compile_supported as asked
        before = asked("cpu")
        from torch._dynamo.utils import is_compile_supported
        said["asked"] = [before, has("torch._dynamo"), is_compile_supported("cpu")]

        usual = trained(torch.optim.SGD), trained(torch.optim.AdamW)
        again = trained(plain_optimizers.SGD), trained(plain_optimizers.AdamW)
        said["as torch"] = all(map(torch.equal, plain + again, usual + usual))
        with deterministic_kernels(True):
            said["deterministic"] = torch.are_deterministic_algorithms_enabled()
        said["deterministic afterwards"] = torch.are_deterministic_algorithms_enabled()
        print(json.dumps(said))
    """
    found: dict[str, Any] = json.loads(_printed(code))
    return found


def test_training_and_predicting_never_import_torchvision(said):
    assert not said["torchvision"]


def test_a_model_is_loaded_and_answers_without_torchs_compiler(said):
    assert (said["shape"], said["answered"]) == ([1, 2], [True, False, False])


def test_nondeterministic_training_asks_torch_nothing_that_brings_its_compiler(said):
    assert said["trained"] == [False, False]
    assert (said["deterministic"], said["deterministic afterwards"]) == (True, False)


def test_the_steps_of_a_training_are_torchs_with_its_compiler_and_without(said):
    assert said["as torch"]


def test_torchvision_comes_without_torchs_compiler_and_gets_it_when_it_asks(said):
    before, compiler, expected = said["asked"]

    assert (before, compiler) == (expected, True)


def test_torch_without_its_meta_kernels_predicts_alike_and_exports_the_same_graph_once_it_has_them(tmp_path):
    model = make_random_model(tmp_path / "model")
    code = """if True:
        import sys
        from modeling.networks.dynamo import deferred_meta_kernels
        with deferred_meta_kernels():
            import torch
        print("torch._meta_registrations" in sys.modules)
        from tests.support.small_models import describe_answers
        print(*describe_answers(sys.argv[1]))
    """

    without = _printed(code, str(model)).split()

    assert without == ["False", *describe_answers(str(model))]  # torch has them here
