"""The first story: a printed page is read by a classifier which never saw its fonts. No torch, no job, no queue."""
