"""Names of queues and tasks."""

CLASSIFY = "classify"
TRAIN = "train"
FINALIZE = "finalize"

ALL_QUEUES = (CLASSIFY, TRAIN, FINALIZE)

# The queue of a job's doorbells, by its kind; doorbells for its end go to FINALIZE.
QUEUE_OF_KIND = {"classify": CLASSIFY, "train": TRAIN, "evaluate": TRAIN}

# The task of a doorbell, by its queue; one task for each queue.
TASKS = {queue: f"pigeonhole.{queue}" for queue in ALL_QUEUES}
