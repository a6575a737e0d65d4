"""One study: its trials, its judge, its files. Free of Ray, so that anything can drive it."""
