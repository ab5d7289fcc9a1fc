"""From a row of the table to files that run elsewhere: formats, parity check, latency, model card."""
