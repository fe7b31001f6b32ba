"""``wtal-ablate``: the ablation of the method on many worlds of the embedded benchmark, and the comparison of recipes.

The ablation: ``variants`` defines the stages that are trained, ``worlds`` trains them in one world, ``statistics`` has
means and paired intervals, ``results`` the JSON of a whole ablation, ``markdown`` and ``figure`` the page, and
``reproduction`` repeats a recorded world. The comparison on a data set: ``compare_recipes``, ``trial`` and the
``comparison_`` files.
"""
