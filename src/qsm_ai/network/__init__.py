"""The deep network: architecture, simulated training data, training, export and evaluation."""
