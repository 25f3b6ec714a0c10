"""What is found in the store and the study for a page: rows as plain values, components by their
names, targets, labels.
"""
