"""What a recipe's values say of each other, before they are checked: rounds and stages over the top level, what follows from
`rollout`, and one key by two names. Values of the wrong type are left as they are, for the checks to name.
"""
