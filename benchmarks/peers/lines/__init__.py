"""Other ways to answer an image at a time, with our decoder and engine."""
