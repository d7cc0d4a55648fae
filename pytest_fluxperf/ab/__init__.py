"""A/B: two environments measure the same tests on one device in turns (docs/comparing.md).

``protocol`` is what crosses between the processes, ``child`` the pytest plugin on their side, ``side`` a process as its
conductor sees it, ``conductor`` the order of turns and blocks, ``outcome`` results made of what came back.
"""
