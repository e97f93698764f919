"""The Celery application of one task an image, for its workers and its client.

Best settings here: bytes as they are (pickle), results for a minute, the broker's default acknowledgements.
"""

from celery import Celery

TASK = "benchmarks.classify"


def make_app(url: str) -> Celery:
    """An application whose broker and result backend are one server."""
    app = Celery("benchmarks", broker=_transport(url), backend=_transport(url, "redis+socket"))
    app.conf.update(
        task_serializer="pickle", result_serializer="json", accept_content=["pickle", "json"], result_expires=60,
        worker_prefetch_multiplier=1, task_default_delivery_mode="transient", worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
    )  # fmt: skip
    return app


def _transport(url: str, scheme: str = "redis+socket") -> str:
    """Celery's word for a unix socket."""
    return f"{scheme}://{url.removeprefix('unix://')}" if url.startswith("unix:") else url
