"""The gateway: HTTP in, jobs and results out."""
