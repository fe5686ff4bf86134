"""Running the network: in process, or on a Triton server."""
