"""Reports of runs: scores, errors and training curves as numbers, as an HTML page, and as figures for a paper."""
