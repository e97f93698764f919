from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.contract.errors import MessageError
from orchestrator.contract.jobs.requests import (
    ClassifyRequest,
    EvaluateJobRequest,
    MaxFailures,
    TrainJobRequest,
    fingerprint,
    parse_request,
)
from tests.support.fakes import PIN

PATH = Path("job.json")
CLASSIFY = ClassifyRequest(
    job="c261123-143355-7f3a2b",
    created=datetime(2026, 11, 23, 14, 33, 55, tzinfo=UTC),
    source="scans",
    root="/data/scans",
    follow_symlinks=False,
    model=PIN,
    output="/data/out.csv",
    output_format="csv",
    overwrite=False,
    top_k=5,
    shard_size=512,
    max_failures=MaxFailures(share=0.01),
    idempotency_key="monday",
)
TRAIN = TrainJobRequest(
    job="t261123-143355-7f3a2b",
    created=datetime(2026, 11, 23, 14, 33, 55, tzinfo=UTC),
    source="photos",
    name="birds",
    train={"data": "/data/photos", "epochs": 3},
)


EVALUATE = EvaluateJobRequest(
    job="e261123-143355-7f3a2b",
    created=datetime(2026, 11, 23, 14, 33, 55, tzinfo=UTC),
    source="photos",
    model=PIN,
    data="/data/photos",
    part="test",
)


@pytest.mark.parametrize("request_", [CLASSIFY, TRAIN, EVALUATE])
def test_a_request_comes_back_from_its_file(request_):
    assert parse_request(request_.model_dump_json().encode(), path=PATH) == request_


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", r"job\.json: not JSON"),
        (b"[]", r"job\.json describes a job of kind None; version 1 knows classify, train, evaluate"),
        (b'{"kind": "sort", "version": 1}', r"describes a job of kind 'sort'"),
        (b'{"kind": ["train"], "version": 1}', r"describes a job of kind \['train'\]"),
        (EVALUATE.model_dump_json().replace('"test"', '"some"').encode(), r"is malformed: part: Input should be 'all'"),
        (b'{"kind": "classify", "version": 7}', r"job\.json has version 7"),
        (b'{"kind": "classify", "version": 1}', r"job\.json is malformed: job: the key is missing"),
        (CLASSIFY.model_dump_json().replace('"version":1', '"version":3').encode(), r"has version 3"),
    ],
)
def test_a_request_that_cannot_be_read_is_an_error(data, message):
    with pytest.raises(MessageError, match=message):
        parse_request(data, path=PATH)


def test_two_submissions_of_the_same_spec_have_one_fingerprint():
    again = CLASSIFY.model_copy(
        update={
            "job": "c261124-000000-000000",
            "created": CLASSIFY.created + timedelta(days=1),
            "shard_size": 64,  # measured anew
        }
    )

    assert fingerprint(again) == fingerprint(CLASSIFY)


@pytest.mark.parametrize(
    "change",
    [
        {"root": "/other"}, {"output": "/data/b.csv"}, {"top_k": 1}, {"overwrite": True},
        {"model": PIN.model_copy(update={"digest": "e" * 64})}, {"max_failures": None}, {"idempotency_key": "tuesday"},
    ],
)  # fmt: skip
def test_another_spec_has_another_fingerprint(change):
    assert fingerprint(CLASSIFY.model_copy(update=change)) != fingerprint(CLASSIFY)


def test_a_model_pin_is_spelt_as_on_the_command_line():
    assert PIN.ref == "fake@1"


@given(percent=st.integers(0, 100), hundreds=st.integers(0, 100_000))
@example(percent=29, hundreds=1)  # 28.999999999999996 in binary
def test_a_share_of_all_images_is_not_lost_to_binary_fractions(percent, hundreds):
    limit = MaxFailures(share=percent / 100).limit(100 * hundreds)

    assert limit == percent * hundreds


@pytest.mark.parametrize("wrong", [{"count": -1}, {"share": 1.5}, {"share": -0.1}])
def test_a_limit_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        MaxFailures(**wrong)
