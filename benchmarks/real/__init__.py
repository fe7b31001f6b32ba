"""Baselines on real features: ``python -m benchmarks.real --data DIR/dataset.toml``, see :mod:`benchmarks.real.run`."""
