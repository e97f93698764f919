"""The benchmark of commands after the answer, with few rows."""

from benchmarks.after import measure, memory_growth


def test_every_command_is_measured_and_finds_what_there_is(tmp_path):
    runs = measure(tmp_path, [3000])

    counts = {run["command"]: run["counts"] for run in runs}
    assert list(counts) == ["show", "sheet", "diff", "diff_shuffled"]
    assert counts["diff"]["num_equal"] == 2970
    assert counts["diff"] == counts["diff_shuffled"]
    assert counts["show"]["rows_shown"] > 0
    assert (tmp_path / "sheet.html").stat().st_size > 3000
    assert all(run["peak_mb"] > 10 for run in runs)
    assert memory_growth(runs) == {"show": 0, "sheet": 0, "diff": 0, "diff_shuffled": 0}


def test_growth_is_the_difference_between_the_first_and_the_last_size():
    runs = [{"command": "diff", "peak_mb": peak} for peak in (50.0, 52.5)]

    assert memory_growth(runs) == {"diff": 2.5}
