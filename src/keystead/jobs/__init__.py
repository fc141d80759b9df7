"""Work that one process of many does at a time: leases, fencing tokens, heartbeats, ``run_due``.

Knows nothing of what a job does.
"""
