"""Faults at every named step of a job."""
