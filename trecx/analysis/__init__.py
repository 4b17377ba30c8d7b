"""Tables, comparisons and claims: records in, pandas out, nothing is rendered."""
