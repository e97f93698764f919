import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modeling.inference.classifier import Classifier
from modeling.inference.engines.openvino_engine import OpenVinoEngine
from modeling.networks.onnx_graph import write_graph
from tests.support.small_models import make_random_model, random_images

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    root = tmp_path_factory.mktemp("openvino")
    classifier = Classifier.load(make_random_model(root / "model"))
    write_graph(classifier.network, classifier.card, root / "network.onnx")
    return OpenVinoEngine(root / "network.onnx", "fp32", num_streams=2)


def test_an_image_that_is_missing_does_not_change_the_answers_to_its_neighbours(engine):
    images = random_images(32)

    whole, without = engine.logits(images), engine.logits(images[:31])

    assert np.array_equal(whole[:31], without)


def test_answers_are_kept_when_the_next_batch_is_computed(engine):
    first = engine.logits(random_images(4))
    before = first.clone()

    engine.logits(random_images(4)[::-1])

    assert np.array_equal(first, before)


def test_many_threads_get_the_answers_to_their_own_images(engine):
    batches = [random_images(5)[index:] for index in range(5)] * 8
    expected = [engine.logits(batch) for batch in batches]

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(engine.logits, batches))

    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_threads_may_make_the_first_calls_of_a_process_together_and_the_main_thread_keeps_its_stack_for_signals(
    tmp_path,
):
    """Processes without an engine of their own: each is forked from one that has the libraries."""
    classifier = Classifier.load(make_random_model(tmp_path / "model"))
    write_graph(classifier.network, classifier.card, tmp_path / "network.onnx")
    code = """if True:
        import ctypes, os, sys, threading
        from pathlib import Path
        import numpy as np
        from modeling.inference.engines import openvino_library
        from modeling.inference.engines.openvino_engine import OpenVinoEngine
        images = np.zeros((4, 8, 8, 1), np.uint8)

        def first_calls_together():
            engine = OpenVinoEngine(Path(sys.argv[1]), "fp32", num_streams=2)
            together = threading.Barrier(4)
            def call():
                together.wait()
                engine.logits(images)
            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()

        for _ in range(3):  # it takes chance to stand still
            if (child := os.fork()) == 0:
                code = 1
                try:
                    first_calls_together()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        engine = OpenVinoEngine(Path(sys.argv[1]), "fp32")
        engine.logits(images)
        stack = openvino_library._Stack()
        openvino_library._sigaltstack(None, ctypes.byref(stack))
        print(stack.start, stack.size)
    """

    command = [sys.executable, "-c", code, str(tmp_path / "network.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=160)

    assert (done.returncode, done.stdout) == (0, "None 0\n"), done.stderr


def test_images_need_not_be_contiguous(engine):
    images = random_images(6)

    assert np.array_equal(engine.logits(images[::2]), engine.logits(images[::2].copy()))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
def test_an_engine_fitted_to_a_batch_size_answers_the_same_in_batches_of_any(engine, size):
    images = random_images(size)

    np.testing.assert_allclose(engine.for_batch_size(4).logits(images), engine.logits(images), atol=1e-5)


def test_an_image_has_the_same_scores_to_the_last_digit_whatever_it_is_predicted_with(engine):
    images, fitted = random_images(8), engine.for_batch_size(8)

    alone = np.concatenate([fitted.logits(images[at : at + 1]) for at in range(8)])

    assert np.array_equal(fitted.logits(images), alone)
    assert np.array_equal(fitted.logits(images[:5]), alone[:5])


def test_a_graph_of_fixed_shapes_serves_what_fits_into_it_and_one_of_any_shape_the_rest(engine, monkeypatch):
    compile_graph, compiled = OpenVinoEngine._compiled, []

    def compile_and_tell(self, size):
        compiled.append(size)
        return compile_graph(self, size)

    monkeypatch.setattr(OpenVinoEngine, "_compiled", compile_and_tell)
    fresh = copy.copy(engine)
    fresh._idle = {}
    fitted = fresh.for_batch_size(4)

    for size in (1, 3, 4):
        fitted.logits(random_images(size))
    assert compiled == [4]
    for size in (8, 9):
        fitted.logits(random_images(size))

    assert compiled == [4, 0]
