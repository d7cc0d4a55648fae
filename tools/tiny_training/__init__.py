"""The program that trained `tiny`: ``python -m tools.tiny_training --out DIR``.

Read it in this order: ``scenes`` (what can be asked for), ``render`` (what it looks like), ``architecture``
(the networks), ``vae``, ``flow`` (the two trainings), ``checker`` (does a picture show its caption?),
``evaluate`` and ``export``. ``__main__`` runs them one after the other; ``cost`` measures what the model costs.

Beside the package and its extra ``flux`` it needs matplotlib and scipy, which requirements/test.txt pins.
"""
