"""What a classifier is: images in, predictions out. Knows no job, queue or command line."""
