"""What pictures are made of: colours, labels, painting onto pixels, matplotlib figures, tables."""
