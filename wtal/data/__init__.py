"""Data sets: layouts on disk, annotations, features, batches."""
