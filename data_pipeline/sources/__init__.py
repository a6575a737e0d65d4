"""Readers of the forms in which wafer maps circulate; each returns RawWafers and judges nothing."""
