"""The two branches, CBP and VLP, and the blocks that they share."""
