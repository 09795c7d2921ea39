"""Measurements with a protocol: frozen cases, whole processes, and single stages."""
