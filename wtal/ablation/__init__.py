"""What each step of the method buys, over many worlds of the embedded benchmark: ``wtal-ablate``.

One file a subject: ``variants`` what is trained and compared, ``worlds`` one world's run, ``statistics`` means and
paired intervals, ``results`` the JSON of a whole ablation, ``markdown`` and ``figure`` what people look at, ``check``
whether another run agrees.
"""
