"""What an operator sees of the service: logs, metrics and traces, alike in every process."""
