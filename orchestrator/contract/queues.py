"""Names of queues and tasks: what a worker listens to, and what rings there."""

CLASSIFY = "classify"
TRAIN = "train"
FINALIZE = "finalize"

ALL_QUEUES = (CLASSIFY, TRAIN, FINALIZE)

# A doorbell's task by the queue it hangs on; one task a queue.
TASKS = {queue: f"pigeonhole.{queue}" for queue in ALL_QUEUES}
