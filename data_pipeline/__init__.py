"""Wafer files -> WaferSet -> lot-disjoint splits -> uint8 tensors on the device. Knows nothing of models or search."""
