"""Ask a manifest questions in SQL with DuckDB; files larger than memory are fine.

python examples/manifest_with_duckdb.py letters.csv        (or .json, .jsonl; needs: pip install duckdb)
"""

import sys

import duckdb

READERS = {
    "csv": """
        SELECT status, label, CAST(score AS DOUBLE) AS score, error_code
        FROM read_csv($file, header = true, all_varchar = true)  -- labels such as 001 are text
    """,
    "jsonl": """
        SELECT * FROM read_json($file, format = 'newline_delimited', columns =
            {status: 'VARCHAR', label: 'VARCHAR', score: 'DOUBLE', error_code: 'VARCHAR'})
    """,
    "json": """
        SELECT unnest(predictions, max_depth := 2)  -- the document is one value, which must fit into memory
        FROM read_json($file, maximum_object_size = 2000000000)
    """,
}
AS_READ = """
    SELECT size, mtime_ns FROM read_json($sources, format = 'newline_delimited', columns =
        {size: 'BIGINT', mtime_ns: 'BIGINT'})  -- a line for each row, in the same order
"""
BY_LABEL = """
    SELECT label, count(*) AS images, round(avg(score), 4) AS score, sum(size) AS bytes,
           max(make_timestamp_ns(mtime_ns)) AS newest
    FROM images WHERE status = 'ok' GROUP BY label ORDER BY label
"""
BY_ERROR = "SELECT error_code, count(*) AS images FROM images WHERE status = 'error' GROUP BY ALL ORDER BY ALL"


def main(manifest: str) -> None:
    rows = READERS[manifest.rpartition(".")[2]]
    files = {"file": manifest, "sources": f"{manifest}.sources"}
    duckdb.execute(f"CREATE TEMP TABLE images AS FROM ({rows}) POSITIONAL JOIN ({AS_READ})", files)
    print(duckdb.sql(BY_LABEL))
    print(duckdb.sql(BY_ERROR))


if __name__ == "__main__":
    main(*sys.argv[1:])
