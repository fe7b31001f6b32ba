"""What a person looks at: a run's scores, errors and curves as numbers, as one HTML page, as figures for a paper."""
