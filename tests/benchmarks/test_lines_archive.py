"""The benchmark of look-ups finds what it wrote, and nothing else."""

from benchmarks.lines.archive import measure


def test_a_small_archive_is_measured(tmp_path):
    figures = measure(tmp_path / "answers", 500)

    assert figures["files"] == 1
    assert 300 < figures["bytes_per_answer"] < 600
    assert figures["there_p50_us"] <= figures["there_p99_us"]
