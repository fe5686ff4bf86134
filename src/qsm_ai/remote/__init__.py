"""The command line of a service somewhere else: one scan, or a whole dataset."""
