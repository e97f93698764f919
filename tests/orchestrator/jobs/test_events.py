"""Short descriptions of the events of trainings and evaluations."""

import json

import pytest

from orchestrator.jobs.follow import describe_event, share_done, warnings

EPOCH = {"event": "epoch", "epoch": 2, "epochs": 9, "loss": 0.5, "accuracy": 0.91}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (EPOCH, "epoch 2/9, loss 0.5000, validation accuracy 0.9100"),
        (EPOCH | {"accuracy": None}, "epoch 2/9, loss 0.5000"),
        (
            EPOCH | {"seconds": 3.5, "images_per_sec": 1234.4, "learning_rate": 0.1},
            "epoch 2/9, loss 0.5000, validation accuracy 0.9100, 1,234 images/s, 24 s left",
        ),
        (EPOCH | {"epoch": 9, "seconds": 3.5}, "epoch 9/9, loss 0.5000, validation accuracy 0.9100"),
        ({"event": "scan", "num_done": 3, "num_images": 7000}, "scanning 3/7,000 images"),
        ({"event": "decode", "num_done": 3, "num_images": 7}, "reading 3/7 images"),
        ({"event": "features", "num_done": 3, "num_images": 7}, "computing features of 3/7 images"),
        ({"event": "evaluate", "num_done": 3, "num_images": 7}, "evaluating 3/7 images"),
        ({"event": "probe", "l2": 0.1, "accuracy": None}, "linear probe fitted"),
        ({"event": "probe", "accuracy": 0.98765}, "linear probe fitted: validation accuracy 0.9877"),
        (
            {"event": "data", "num_train": 1234, "num_validation": 60, "num_test": 100, "classes": {"a": 1394}},
            "1,234 images to learn from, 160 held out",
        ),
        ({"event": "model", "digest": "0" * 64, "metrics": {}}, "the model is made"),
        ({"event": "resumed", "epoch": 4, "step": 120}, "resumed after epoch 4"),
        ({"event": "note", "text": "the disk\nis full"}, "the disk is full"),
        ({"event": "warning", "text": "the figures flatter it"}, "the figures flatter it"),
        ({"event": "something new", "text": "x"}, ""),
        ({"event": "scan", "num_done": "many"}, ""),
        ({"event": "epoch"}, ""),
        ({"event": ["note"]}, ""),
        (["note"], ""),
    ],
)
def test_an_event_is_a_few_words_on_one_line_and_one_of_another_release_is_none(event, words):
    assert describe_event(json.dumps(event)) == words


def test_warnings_are_kept_to_the_end_each_once(tmp_path):
    events = [
        {"event": "note", "text": "a warning it is not"},
        {"event": "warning", "text": "first"},
        {"event": "evaluate", "num_done": 1, "num_images": 1},
        {"event": "warning", "text": "second"},
        {"event": "warning", "text": "first"},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "warning", "te')

    assert warnings(path) == ["first", "second"]
    assert warnings(tmp_path / "nowhere") == []


def test_before_the_first_event_the_description_is_empty():
    assert (describe_event(""), share_done("")) == ("", None)


@pytest.mark.parametrize(
    ("event", "share"),
    [
        (EPOCH, (2, 9)),
        ({"event": "scan", "num_done": 3, "num_images": 7}, (3, 7)),
        ({"event": "scan", "num_done": 8, "num_images": 7}, None),
        ({"event": "scan", "num_done": 0, "num_images": 0}, None),
        ({"event": "scan", "num_done": "3", "num_images": 7}, None),
        ({"event": "download", "bytes_done": 5, "num_bytes": 20}, (5, 20)),
        ({"event": "download", "bytes_done": 5, "num_bytes": None}, None),
        ({"event": "note", "text": "x"}, None),
    ],
)
def test_how_much_is_done_is_known_where_an_event_counts(event, share):
    assert share_done(json.dumps(event)) == share
