"""`python -m workers.classify.measure`: measures a model on a sample of images, in a process of its own.

stdin: one line with a MeasureRequest, then a pipe that the parent holds open; when it closes, the parent has ended and
this process ends too. stdout: one line with a MeasureAnswer. stderr: the output of libraries.
Exit codes: 0 done, 1 a user error (in the answer) or a bug (a traceback on stderr), 75 the parent has ended.
"""

import resource
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from modeling.errors import ModelingError
from modeling.inference.measure import Measurement, measure_pipeline
from modeling.names import text_to_path
from modeling.registry.store import ModelVersion
from modeling.training.process import EXIT_MISTAKE, exit_with_parent, take_stdout
from orchestrator.contract.jobs.measuring import MeasureAnswer, MeasureRequest
from workers.classify.read import ImageReader


def main() -> int:
    """Answer the request on standard input; returns the exit code."""
    answers = take_stdout()
    request = MeasureRequest.parse_json(sys.stdin.buffer.readline(), what="the request")
    threading.Thread(target=exit_with_parent, name="parent-watch", daemon=True).start()
    try:
        measured = asdict(measure_sample(request))
        answer = MeasureAnswer(**measured, peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
    except ModelingError as err:
        answer = MeasureAnswer(error=str(err))
    with open(answers, "wb") as file:
        file.write(answer.model_dump_json().encode() + b"\n")
    return EXIT_MISTAKE if answer.error else 0


def measure_sample(request: MeasureRequest) -> Measurement:
    """Measure the requested model on the requested images, read as a worker reads them.

    Raises ModelingError where the model cannot be loaded on that device.
    """
    from modeling.inference.choose_engine import load_fastest  # torch

    reader = ImageReader(request.root, follow_symlinks=request.follow_symlinks, max_file_bytes=request.max_file_bytes)
    classifier = load_fastest(
        ModelVersion.at(Path(text_to_path(request.model))), request.device, precision=request.precision
    )
    return measure_pipeline(
        [reader.source(text_to_path(path)) for path in request.paths],
        classifier.for_batch_size(request.batch_size) if request.batch_size else classifier,
        decode_threads=request.decode_threads,
        max_pixels=request.max_pixels,
        limit_s=request.limit_s,
    )


if __name__ == "__main__":
    sys.exit(main())
