"""``qsm-ai doctor``: what an outsider can find out about a running deployment.

Everything is done as a user would do it, over HTTP: nothing is assumed about the machines behind the address.
What it prints is meant to be pasted into an issue, so no address, key or file name stands in it.
"""
