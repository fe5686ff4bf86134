"""Jobs: their durable records, the worker that takes them, and the process that computes them."""
