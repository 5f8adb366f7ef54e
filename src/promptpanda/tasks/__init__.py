"""Task specs, the catalog (data, not code), loading, encoding, metrics."""
