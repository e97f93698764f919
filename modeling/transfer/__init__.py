"""Transfer learning: cached features of a pre-trained network, and a linear probe that becomes its head."""
