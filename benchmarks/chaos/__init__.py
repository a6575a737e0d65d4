"""Chaos: hundreds of small searches, each hurt once at a random moment and gone on with by the same command."""
