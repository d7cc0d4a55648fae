"""Faults and hostile input on purpose: what must come of them is an error in one line, and never a green run.

``python -m tools.campaign --quick`` takes minutes, without ``--quick`` much longer; both print figures and exit with 1
where one of them is not zero.
"""
