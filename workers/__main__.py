"""`python -m workers` is what `pigeonhole worker` starts."""

from workers.process import main

if __name__ == "__main__":
    main()
