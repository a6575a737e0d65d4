"""The space file: what may be tried, read and checked down to what would only fail in a trial."""
