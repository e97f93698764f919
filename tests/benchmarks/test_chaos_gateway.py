"""What `benchmarks.chaos_gateway` takes for a broken promise."""

from benchmarks.chaos_gateway import judge

ANSWER = {"bin": "1", "reason": None, "label": "a", "model": "m@1", "ms": 4.0}


def broken(answer=ANSWER, again=ANSWER, *, records=1, taken=("1/x",)):
    return judge({"x": answer}, {"x": again}, records, list(taken))


def test_one_answer_and_one_record_an_item_break_nothing():
    assert broken(again=ANSWER | {"ms": 9.0}) == []


def test_another_answer_later_another_bin_a_missing_record_and_a_second_prediction_are_broken_promises():
    other = ANSWER | {"bin": "2"}

    assert broken(again=other) == ["x had ('1', None, 'a', 'm@1'), later ('2', None, 'a', 'm@1')"]
    assert broken(other, other) == ["1 items have not their bin: ['x']"]
    assert broken(records=0) == ["the line has 0 records, 1 wanted"]
    assert broken(taken=("1/x", "1/x")) == ["a worker took an item twice"]
