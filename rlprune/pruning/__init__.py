"""Filter groups, surgery, repair, importance, cost and the reward engine: no Ray, no gymnasium in here."""
