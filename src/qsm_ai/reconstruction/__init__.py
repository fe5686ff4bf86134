"""From a scan to a susceptibility map: stages, patches, network inputs, physics check."""
