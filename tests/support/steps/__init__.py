"""Faults at named steps: a process is killed or frozen at a step, or a call of the step fails.

`step.py`         what a step is
`jobs.py`, `trainings.py`, `operators.py`   the steps, by the tables of docs/job_lifecycle.md
`table.py`        all of them, by name: `STEPS["shard.commit"]`; the tables of the docs, read
`injected.py`     runs in every process under test: wraps the calls that steps name
`faults.py`       what a test uses: `Faults` arms a fault, waits until it has struck, and lets a frozen process go on
`compare.py`      what is published, without what differs between two runs; what is left behind

How a test uses it:

    faults = Faults(tmp_path / "faults")
    cluster = Cluster(home, server, faults.environment())     # every process of the cluster can be struck
    worker = cluster.start_worker()
    with faults.armed(Fault("shard.commit", "kill", before=True)) as struck:
        job = cluster.submit("classify", ...)
        struck.wait()                                         # TimeoutError: the step was never reached
    assert differences(undisturbed, published(output)) == []

A fault strikes once, in the first process that reaches the step; `Fault(times=3)` strikes three times, `role="child"`
only in pool children. A fault that has not struck at the end of `armed` is an AssertionError: a test that does not
reach its step shows nothing. Processes look for an armed fault at every call, so workers are started once for many
faults. Outside tests nothing of this exists: the processes import `injected` by a `sitecustomize` of the test's own.
"""
