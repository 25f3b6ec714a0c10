"""Who can be told from whom, and how sure a mean is: one method for page, command line and
comparison.

- `decision`: the one rule for "cannot be told apart", its level and its false-alarm rates;
- `sequential`: the rule by which seeds are added until who is best is decided;
- `corrections`: what to make of many tests;
- `intervals`: Student's interval of a mean, on the line and on a logarithmic axis.
"""
