"""The Celery side of Pigeonhole: takes shards and training jobs off the queues and owns a device."""
