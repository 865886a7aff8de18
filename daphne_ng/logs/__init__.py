"""What lines of the logs look like: JSON and its names, colours, priorities for the journal.

`fields` writes one line of JSON, for both logs; `formats` makes the formatters of the server's. What sets them up is
`daphne_ng.serving.logconfig`, and what writes without waiting `daphne_ng.serving.outlet`.
"""
