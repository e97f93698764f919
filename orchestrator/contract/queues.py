"""Names of queues and tasks: what a worker listens to, and what rings there."""

CLASSIFY = "classify"
TRAIN = "train"
FINALIZE = "finalize"

ALL_QUEUES = (CLASSIFY, TRAIN, FINALIZE)

# Where the doorbells of a job hang, by its kind; those that end it hang on FINALIZE.
QUEUE_OF_KIND = {"classify": CLASSIFY, "train": TRAIN, "evaluate": TRAIN}

# A doorbell's task by the queue it hangs on; one task a queue.
TASKS = {queue: f"pigeonhole.{queue}" for queue in ALL_QUEUES}
