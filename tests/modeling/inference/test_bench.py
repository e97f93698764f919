from modeling.inference import choose_engine
from modeling.inference.bench import BATCH_SIZES, bench_engines
from modeling.inference.choose_engine import load_fastest
from modeling.inference.find_engine import Option
from tests.support.published_models import publish_model


def test_every_engine_is_timed_with_every_batch_size_and_the_one_in_use_is_marked(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    options = choose_engine._options

    def broken():
        raise RuntimeError("no such instruction")

    def with_a_broken_one(*args):
        return [*options(*args)[:1], Option("openvino bf16", "bf16", broken)]

    monkeypatch.setattr(choose_engine, "_options", with_a_broken_one)

    *timed, refused = bench_engines(version)

    in_use = load_fastest(version).batch_size
    assert [(speed.engine, speed.batch_size, speed.chosen) for speed in timed] == [
        ("torch fp32", size, size == in_use) for size in sorted({*BATCH_SIZES, in_use})
    ]
    assert all(speed.images_per_sec > 0 and speed.latency_ms > 0 for speed in timed)
    assert (refused.engine, refused.refused) == ("openvino bf16", "RuntimeError: no such instruction")
