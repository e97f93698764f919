"""`python -m workers` is what `pigeonhole worker` starts."""

from orchestrator.contract.streams import prepare_process

if __name__ == "__main__":
    prepare_process()
    from workers.process import main  # Celery is imported once the process's encoding is right

    main()
