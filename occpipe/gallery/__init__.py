"""The pages that people look at results with: figures of all rows, a sample worth a look, and its pictures."""
