"""Networks: those of our own, torchvision's, and how any of them is built, fed and given another head."""
