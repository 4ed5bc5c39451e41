"""Training of the small nets that ship in the package; needs the extra `train` and the data of a folder."""
