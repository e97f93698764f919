"""Names of queues and tasks."""

KEY_PREFIX = "{pigeonhole}:celery:"  # of all keys and channels that Celery uses on the server

CLASSIFY = "classify"
TRAIN = "train"
FINALIZE = "finalize"

ALL_QUEUES = (CLASSIFY, TRAIN, FINALIZE)

# The queue of a job's doorbells, by its kind; doorbells for its end go to FINALIZE.
QUEUE_OF_KIND = {"classify": CLASSIFY, "train": TRAIN, "evaluate": TRAIN}

# The task of a doorbell, by its queue; one task for each queue.
TASKS = {queue: f"pigeonhole.{queue}" for queue in ALL_QUEUES}


def queue_key(queue: str) -> str:
    """The list on the server that holds a queue's doorbells."""
    return KEY_PREFIX + queue
