"""One page that tells a project's whole story: what went in, what was removed, what it cost, what came out."""
