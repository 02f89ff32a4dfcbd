"""The fault driver: seeded schedules of faults against real servers, and the invariants that must hold after each.

`python -m tests.faults --help`; what is promised and how it is found out is in docs/faults.md.
"""
